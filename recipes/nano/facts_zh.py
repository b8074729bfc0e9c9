# ruff: noqa: E501, SIM905 (lists of words read best as words)
"""Chinese facts about invented organisations: each a sentence and the questions it answers.

The twin of `facts_en.py`; knows nothing of passages, numbering or answers.
"""

import random

from recipes.nano import words
from recipes.nano.fact import Fact

ORG_KINDS = """仪器厂 研究所 图书馆 面包房 医院 学院 博物馆 工坊 实验室 档案馆 造船厂 果园 剧院 诊所 出版社
天文台 纺织厂 银行 工作室 植物园 小学 物流公司 机器人公司 食品公司 能源公司 传媒公司 光学公司 陶瓷厂 铁路局
保险公司 软件公司 农场 酒店 合作社""".split()
SURNAMES = "赵 钱 孙 李 周 吴 郑 王 冯 陈 褚 卫 蒋 沈 韩 杨 朱 秦 许 何 吕 张 孔 曹 严 金 魏 陶 姜 谢 邹 苏 潘 葛 范 彭 鲁 马 方 袁 柳 唐 薛 雷 贺 汤 罗 郝 安 常 于 傅 康 余 顾 孟 黄 萧 姚 邵 汪 毛 米 宋 庞 纪 舒 屈 项 董 梁".split()
THINGS = """冷库 大门 锅炉 印刷机 阅览室 机房 电梯 屋顶花园 防火门 打印店 北码头 水泵 备用发电机 烘箱 试验台 装卸区
档案室 窑炉 送货车 食堂 自行车棚 会议厅 急救室 西塔 喷漆间 报警器 起重机 叉车 温室 样品柜 望远镜 游泳池 停车场
咖啡机 售票处 夜班车 服务台 收发室 蒸汽管道 太阳能板 传送带 钟楼 招待所 风洞 维修间 前台 储水罐 数据库房 静音室
扫描仪 讲堂 渡船 缆车 回收站 酒窖 种子库 培训厨房 安全灯 配件柜台 展示橱窗 奶罐 分拣台 放映机""".split()
ROLES = """主任 安全主管 总工程师 会计 夜班经理 图书管理员 新闻发言人 研究部主管 车间主任 采购经理 数据保护专员
护士长 馆长 培训协调员 现场经理 财务主管 质检员 园长 仓库管理员 客服经理 法律顾问 设计总监 调度员 保安队长""".split()
TEAMS = "研发 销售 设计 维修 安全 采购 包装 运输 培训 客服 餐饮 保洁 测试 规划 出口 档案 园艺 能源 保卫 财务".split()
PRODUCT_KINDS = """台灯 水壶 电钻 传感器 相机 夹克 小提琴 打印机 电子秤 路由器 阀门 电池 帐篷 书桌 水泵 挂钟 收音机
无人机 显微镜 炉子 背包 键盘 滤芯 自行车 椅子 温度计 头盔 音箱 毛毯 工具箱 电话 指南针 搅拌机 取暖器 梯子""".split()
COLOURS = "红色 蓝色 绿色 黄色 白色 黑色 灰色 橙色 棕色 紫色 银色 金色 粉色 青色".split()
CAUSES = """水管破裂 停电 软件故障 小火灾 下水道堵塞 皮带断裂 大雪 雷击 钥匙丢失 阀门冻住 电缆松动 许可证过期
标签贴错 地下室进水 送货延误 传感器故障 大树倒下 轴承磨损 密码错误 电机过热 窗户破裂 零件缺失 燃气泄漏 罢工""".split()
DUTIES = """在来访簿上签名 戴好安全帽 出示证件 锁好后门 打电话给现场经理 填写黄色表格 关灯 洗手 交出手机 保留收据
测试报警器 等待向导 取得书面许可 提前一周预约 交押金 带上身份证 清洁工具 到前台报到 阅读安全须知 归还所有钥匙
戴手套 保存副本 清点库存 检查机油""".split()
OCCASIONS = """进入实验室 使用起重机 离开大楼 开立新账户 拍照 借书 上夜班 寄包裹 启动机器 邀请客人 订购物资 搬运重物
发布报告 开货车 关闭收银台 使用厨房 更改密码 喂养动物 参观档案室 搬运玻璃""".split()
GROUPS = (
    "访客 员工 学生 司机 会员 客人 志愿者 顾客 承包商 学徒 护士 清洁工 研究人员 夜班人员".split()
)
MATERIALS = "橡木 钢 铜 玻璃 羊毛 棉布 竹子 陶土 皮革 铝 石头 软木 亚麻 黄铜 再生塑料 纸".split()
PLACES = "港 桥 山 湾 镇 村 路 河 岛 坡".split()
NUMERALS = "一 两 三 四 五 六 七 八 九 十 十二 十五 二十 三十 四十 六十 九十".split()
WEEKDAYS = "周一 周二 周三 周四 周五".split()

POLICIES = [
    ("{group}在{org}{occasion}之前必须{duty}。",
     ["{group}在{org}{occasion}之前要做什么？", "在{org}，{group}{occasion}前必须怎么做？"]),
    ("在{org}，{group}使用{thing}必须得到{role}的许可。",
     ["在{org}使用{thing}要得到谁的许可？", "{org}的{thing}由谁批准使用？"]),
    ("{org}在购买后{n}天内可以退款。",
     ["{org}多少天内可以退款？", "{org}的退款期限是多久？"]),
    ("{org}每天最多报销{money}的差旅费。",
     ["{org}报销多少差旅费？", "{org}的差旅费标准是多少？"]),
    ("{org}的员工每年有{n}天假期。",
     ["{org}的员工每年有多少天假期？", "{org}给多少天假期？"]),
    ("{org}工作日的开放时间是{time}到{time2}。",
     ["{org}什么时候开放？", "{org}的开放时间是几点？"]),
    ("{org}的发票要保存{n}年。",
     ["{org}的发票要保存多久？", "{org}保存发票多少年？"]),
    ("{org}的密码至少要有{n}个字符。",
     ["{org}的密码要多长？", "{org}对密码有什么规定？"]),
    ("{org}发生事故后，必须在{n}小时内报告{role}。",
     ["{org}发生事故要报告谁？", "{org}的事故要在多久内报告？"]),
    ("{org}的员工每月可以在家办公{n}天。",
     ["{org}的员工每月可以在家办公几天？", "{org}允许在家办公多少天？"]),
]  # fmt: skip
THING_FACTS = [
    ("{org}的{thing}每{n}天检查一次。",
     ["{org}的{thing}多久检查一次？", "{org}的{thing}什么时候检查？"]),
    ("{org}的{thing}由{person}在{year}年建成。",
     ["谁建了{org}的{thing}？", "{org}的{thing}是哪一年建成的？"]),
    ("{org}的{thing}漆成了{colour}。",
     ["{org}的{thing}是什么颜色？", "{org}的{thing}漆成了什么颜色？"]),
    ("{org}的{thing}的密码是{code}。",
     ["{org}的{thing}的密码是多少？", "打开{org}的{thing}要用什么密码？"]),
    ("{org}的{thing}位于{city}。",
     ["{org}的{thing}在哪里？", "{org}的{thing}位于什么地方？"]),
    ("{person}负责管理{org}的{thing}。",
     ["谁负责{org}的{thing}？", "{org}的{thing}由谁管理？"]),
    ("{org}的{thing}可以容纳{n}人。",
     ["{org}的{thing}能容纳多少人？", "{org}的{thing}有多大？"]),
]  # fmt: skip
PRODUCTS = [
    ("{org}销售的{product}是一款{material}制成的{kind}，售价{money}。",
     ["{product}多少钱？", "{product}是用什么做的？", "{org}的{product}售价是多少？",
      "谁销售{product}？"]),
    ("{org}的{product}{kind}重{n}公斤。",
     ["{product}有多重？", "{org}的{product}重量是多少？"]),
    ("{org}为{product}{kind}提供{n}个月的保修。",
     ["{product}的保修期是多久？", "{org}给{product}保修多长时间？"]),
    ("{product}{kind}的电池可以用{n}小时。",
     ["{product}的电池能用多久？", "{product}的续航时间是多少？"]),
    ("{org}在{year}年{month}月发布了{product}{kind}。",
     ["{org}什么时候发布了{product}？", "{product}是什么时候发布的？"]),
]  # fmt: skip
PEOPLE = [
    ("{person}是{org}的{role}。",
     ["谁是{org}的{role}？", "{person}在{org}做什么？", "{person}是谁？"]),
    ("{person}于{year}年加入{org}，领导{team}组。",
     ["{person}哪一年加入{org}？", "谁领导{org}的{team}组？", "{person}领导哪个组？"]),
    ("{org}由{person}于{year}年在{city}创立。",
     ["谁创立了{org}？", "{org}是哪一年创立的？", "{org}是在哪里创立的？"]),
    ("{person}在{org}的分机号是{code}。",
     ["{person}的分机号是多少？", "怎样联系{org}的{person}？"]),
    ("{org}的{team}组有{n}名成员，每{weekday}开会。",
     ["{org}的{team}组什么时候开会？", "{org}的{team}组有多少名成员？"]),
]  # fmt: skip
INCIDENTS = [
    ("{date}，{org}的{thing}因为{cause}停用了{n}小时。",
     ["{org}的{thing}为什么停用？", "{org}的{thing}什么时候停用了？",
      "{org}的{thing}停用了多久？", "{date}{org}发生了什么？"]),
    ("因为{cause}，{org}的{thing}在{date}关闭。",
     ["{org}的{thing}为什么关闭？", "{org}的{thing}什么时候关闭？"]),
    ("{cause}之后，{person}用{n}天修好了{org}的{thing}。",
     ["谁修好了{org}的{thing}？", "修好{org}的{thing}用了多久？"]),
    ("{org}因为{cause}损失了{money}。",
     ["{org}损失了多少？", "{org}因为{cause}损失了多少钱？"]),
]  # fmt: skip
TOPICS = [*POLICIES, *THING_FACTS, *PRODUCTS, *PEOPLE, *INCIDENTS]


def organisation(rng: random.Random, held_out: bool) -> str:
    """The name of an organisation that does not exist."""
    return words.invented_hanzi(rng, rng.choice([2, 2, 3]), held_out) + rng.choice(ORG_KINDS)


def slots(rng: random.Random, org: str, held_out: bool) -> dict[str, str]:
    """A value for every slot that a sentence may name."""
    hour = rng.randint(5, 12)
    year = rng.randint(1950, 2039)
    number = rng.choice(NUMERALS) if rng.random() < 0.4 else str(rng.randint(2, 99))
    amount = str(rng.randint(2, 99) * rng.choice([1, 10, 100, 1000]))
    return {
        "org": org,
        "group": rng.choice(GROUPS),
        "duty": rng.choice(DUTIES),
        "occasion": rng.choice(OCCASIONS),
        "thing": rng.choice(THINGS),
        "role": rng.choice(ROLES),
        "n": number,
        "money": f"{amount}元",
        "time": f"{hour}:{rng.choice(['00', '15', '30', '45'])}",
        "time2": f"{hour + rng.randint(3, 11)}:{rng.choice(['00', '15', '30', '45'])}",
        "person": rng.choice(SURNAMES)
        + words.invented_hanzi(rng, rng.choice([1, 2]), held_out),
        "year": str(year),
        "month": str(rng.randint(1, 12)),
        "date": f"{year}年{rng.randint(1, 12)}月{rng.randint(1, 28)}日",
        "weekday": rng.choice(WEEKDAYS),
        "colour": rng.choice(COLOURS),
        "code": str(rng.randint(100, 99999)),
        "city": words.invented_hanzi(rng, 2, held_out) + rng.choice(PLACES),
        "product": words.invented_hanzi(rng, 2, held_out)
        + rng.choice(["", "", str(rng.randint(2, 900))]),
        "kind": rng.choice(PRODUCT_KINDS),
        "material": rng.choice(MATERIALS),
        "team": rng.choice(TEAMS),
        "cause": rng.choice(CAUSES),
    }  # fmt: skip


def fact(rng: random.Random, org: str, topic: int, held_out: bool) -> Fact:
    """The fact of that topic about `org`, with fresh names and numbers."""
    sentence, questions = TOPICS[topic]
    values = slots(rng, org, held_out)
    return Fact(org, topic, sentence.format(**values), tuple(q.format(**values) for q in questions))
