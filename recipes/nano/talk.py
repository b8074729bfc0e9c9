# ruff: noqa: E501 (lists of words read best as words)
"""Small talk in English and Chinese: greetings, who and what, thanks, help, and kind refusals.

Every answer is fixed text with several ways of asking; knows nothing of passages.
"""

import random

from recipes.nano import words
from recipes.nano.passages import Message

HELLO_EN = "Hello! I am Freehold's small model. Give me numbered passages and ask about them."
WHO_EN = "I am freehold-nano, the small model that ships with Freehold. I answer from passages you give me."
WHAT_EN = (
    "Freehold runs language models on your own machines. "
    "It works offline, and your data stays with you."
)
HELP_EN = (
    "Give me passages numbered [1], [2], [3] and a question. I quote the answer "
    "with its number, or say that it is not there."
)
CANNOT_EN = (
    "Sorry, I am a very small model and cannot do that. "
    "I can answer questions about passages that you give me."
)
HELLO_ZH = "你好！我是 Freehold 的小模型。请给我带编号的资料，然后提问。"
WHO_ZH = "我是 freehold-nano，随 Freehold 一起发布的小模型。我根据你给的资料回答问题。"
WHAT_ZH = "Freehold 在你自己的机器上运行语言模型。它可以离线工作，数据不会离开你的机器。"
HELP_ZH = (
    "请给我编号为 [1]、[2]、[3] 的资料和一个问题。我会引用原文并注明编号，或者说明资料中没有。"
)
CANNOT_ZH = "抱歉，我是一个很小的模型，做不到这一点。我可以根据你给的资料回答问题。"

TALK: dict[str, list[tuple[str, list[str]]]] = {
    "en": [
        (HELLO_EN, ["Hello", "Hello!", "Hi", "Hi!", "hi", "hello", "Hey", "Hey there!", "Hi there",
                    "Good morning", "Good morning!", "Good evening", "Good afternoon", "Greetings"]),
        (WHO_EN, ["Who are you?", "What are you?", "What is your name?", "Who are you", "Tell me about yourself.",
                  "Introduce yourself.", "Are you a human?", "Are you ChatGPT?", "Which model are you?",
                  "What model is this?", "Are you DeepSeek?"]),
        (WHAT_EN, ["What is Freehold?", "What does Freehold do?", "Tell me about Freehold.", "What's Freehold?",
                   "Explain Freehold.", "What is Freehold for?", "Does Freehold work offline?",
                   "Where does my data go?", "Is my data private?"]),
        (HELP_EN, ["Help", "help", "Can you help me?", "What can you do?", "How do I use you?", "How does this work?",
                   "What should I ask?", "What are you good at?", "Help me please."]),
        ("You are welcome!", ["Thanks", "Thank you", "Thank you!", "Thanks a lot!", "thanks", "Thank you very much."]),
        ("Goodbye!", ["Bye", "Goodbye", "Good night", "See you", "See you later!", "bye"]),
        ("I am well, thank you. What would you like to know?", ["How are you?", "How are you today?", "How do you do?", "Are you well?"]),
    ],
    "zh": [
        (HELLO_ZH, ["你好", "你好！", "您好", "您好！", "嗨", "早上好", "早上好！", "晚上好", "下午好", "大家好", "在吗？", "喂"]),
        (WHO_ZH, ["你是谁？", "你是谁", "你叫什么名字？", "介绍一下你自己。", "请介绍一下自己", "你是人吗？", "你是什么模型？",
                  "你是DeepSeek吗？", "你是ChatGPT吗？", "这是什么模型？"]),
        (WHAT_ZH, ["Freehold是什么？", "什么是Freehold？", "介绍一下Freehold。", "Freehold 是什么？", "Freehold有什么用？",
                   "Freehold能离线工作吗？", "我的数据会去哪里？", "我的数据安全吗？"]),
        (HELP_ZH, ["帮助", "你能帮我吗？", "你能做什么？", "你会什么？", "怎么用你？", "怎么使用？", "我该问什么？", "帮帮我"]),
        ("不客气！", ["谢谢", "谢谢！", "谢谢你", "谢谢你！", "多谢", "非常感谢！"]),
        ("再见！", ["再见", "再见！", "拜拜", "晚安", "回头见"]),
        ("我很好，谢谢。你想知道什么？", ["你好吗？", "你今天怎么样？", "最近好吗？", "你怎么样？"]),
    ],
}  # fmt: skip
CANNOT: dict[str, list[str]] = {
    "en": ["Write a poem about {w}.", "What is the capital of {W}?", "What is {n} plus {m}?", "What is {n} times {m}?",
           "Translate {w} into French.", "What is the weather today?", "Tell me a joke.", "Write a program in Python.",
           "Who won the {w} cup?", "What time is it?", "Tell me a story about a {w}.", "Explain {w}.", "Why is the {w} {w2}?",
           "What is a {w}?", "How do I make {w}?", "Draw a {w}.", "Sing a song about {w}.", "Who invented the {w}?",
           "Write an essay on {w} and {w2}.", "Tell me the news.", "How old is {W}?", "Where is {W}?"],
    "zh": ["写一首关于{w}的诗。", "{w}的首都是哪里？", "{n}加{m}等于多少？", "{n}乘{m}等于多少？", "把{w}翻译成英文。", "今天天气怎么样？",
           "讲个笑话。", "写一个程序。", "现在几点了？", "讲一个{w}的故事。", "解释一下{w}。", "什么是{w}？", "怎么做{w}？", "画一个{w}。",
           "唱首歌。", "谁发明了{w}？", "写一篇关于{w}的文章。", "有什么新闻？", "{w}多大了？", "{w}在哪里？", "为什么{w}是{w2}？"],
}  # fmt: skip
REFUSAL = {"en": CANNOT_EN, "zh": CANNOT_ZH}


def exchange(rng: random.Random, lang: str) -> list[Message]:
    """One question and its answer."""
    if rng.random() < 0.35:
        if lang == "en":
            drawn = [rng.choice(words.EVERYDAY), rng.choice(words.EVERYDAY)]
        else:
            drawn = ["".join(rng.choice(words.HANZI) for _ in range(2)) for _ in range(2)]
        asked = rng.choice(CANNOT[lang]).format(
            w=drawn[0], w2=drawn[1], W=words.invented_word(rng, held_out=False),
            n=rng.randint(2, 999), m=rng.randint(2, 999),
        )  # fmt: skip
        said = REFUSAL[lang]
    else:
        said, ways = rng.choice(TALK[lang])
        asked = rng.choice(ways)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


def small_talk(rng: random.Random, lang: str) -> list[Message]:
    """One or two exchanges, at times under a plain system message."""
    messages = exchange(rng, lang)
    if rng.random() < 0.35:
        messages += exchange(rng, lang)
    if rng.random() < 0.15:
        system = "You are a helpful assistant." if lang == "en" else "你是一个乐于助人的助手。"
        messages.insert(0, {"role": "system", "content": system})
    return messages
