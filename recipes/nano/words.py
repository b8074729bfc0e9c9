# ruff: noqa: E501, SIM905 (lists of words read best as words)
"""Word lists and invented names, English and Chinese, for the data generator.

Knows nothing of passages or questions. Names that fall in the held-out eighth (by CRC of the
name) never occur in training. Read `facts_en.py` and `facts_zh.py` next.
"""

import random
import zlib

HELD_OUT_SHARE = 8  # one invented name in eight is kept for measuring

ONSETS = "b br c ch cl d dr f fl g gl gr h j k kr l m n p pl qu r s sh sk st t th tr v w z".split()
VOWELS = "a e i o u ae ai ea ee ia io oa ou y".split()
CODAS = ["", "", "", "l", "n", "r", "s", "m", "ck", "rn", "st", "nd", "ll", "x", "th", "rt"]
ENDINGS = (
    "a o ia by den dale ford gate ham land ley low mere ton vale wick worth well ix on".split()
)

FIRST_NAMES = """Ada Alan Alma Amir Anna Arun Basil Bea Boris Carla Chen Clara Dana David Dora Elena
Emil Erik Eva Farah Felix Fiona Gina Grace Hana Hugo Ian Ida Ines Ivan Jana Jonas Julia Karim Kenji
Lara Leo Lina Lucas Maria Marta Mei Milan Mina Nadia Nora Omar Oscar Paula Petra Priya Ravi Rosa
Ruth Sam Sara Sofia Tara Tom Uma Vera Victor Wanda Yara Yusuf Zoe""".split()

ORG_KINDS = """Foundry Institute Library Bakery Hospital College Museum Workshop Laboratory Archive
Shipyard Orchard Theatre Clinic Press Observatory Mill Brewery Bank Studio Garden School Council
Logistics Robotics Textiles Instruments Foods Energy Media Optics Ceramics Railways Insurance
Software Systems Tools Farm Hotel Cooperative""".split()

THINGS = """cold store|main gate|boiler|press|reading room|server room|lift|roof garden|fire door|
print shop|north dock|water pump|backup generator|drying oven|test bench|loading bay|archive|kiln|
delivery van|canteen|bicycle shed|meeting hall|first aid room|west tower|paint booth|alarm panel|
crane|forklift|greenhouse|sample freezer|telescope|swimming pool|library card|staff car park|
coffee machine|stage lift|ticket office|night shuttle|help desk|mail room|steam pipe|solar roof|
conveyor belt|clock tower|guest house|wind tunnel|repair shop|reception desk|storage tank|data vault|
quiet room|scanner|bell tower|lecture hall|ferry|cable car|recycling yard|wine cellar|seed bank|
training kitchen|safety lamp|parts counter|window display|milk tank|sorting table|film projector
""".replace("\n", "").split("|")

PRODUCT_KINDS = """lamp|kettle|drill|sensor|camera|jacket|saddle|violin|printer|scale|router|valve|
battery|tent|desk|pump|clock|radio|drone|microscope|stove|backpack|keyboard|filter|bicycle|chair|
thermometer|helmet|speaker|blanket|toolbox|telephone|compass|mixer|heater|ladder
""".replace("\n", "").split("|")

ROLES = """director|head of safety|chief engineer|accountant|night manager|librarian|press officer|
head of research|workshop foreman|purchasing manager|data protection officer|head nurse|curator|
training coordinator|site manager|treasurer|quality inspector|head gardener|store keeper|
customer service manager|legal adviser|head of design|transport planner|security officer
""".replace("\n", "").split("|")

TEAMS = """research sales design repair safety purchasing packaging transport training support
catering cleaning testing planning export archive garden energy security finance""".split()

CITIES_KINDS = "Harbour|Bridge|Hill|Cross|Bay|Falls|Market|Heath|Point|Springs".split("|")

COLOURS = """red blue green yellow white black grey orange brown purple silver golden pink
turquoise""".split()

CAUSES = """a burst pipe|a power cut|a software fault|a small fire|a blocked drain|a broken belt|
heavy snow|a lightning strike|a lost key|a frozen valve|a loose cable|an expired licence|
a mislabelled crate|a flooded cellar|a late delivery|a faulty sensor|a fallen tree|a worn bearing|
a wrong password|an overheated motor|a cracked window|a missing part|a gas leak|a strike
""".replace("\n", "").split("|")

DUTIES = """sign the visitor book|wear a helmet|show a badge|lock the back door|call the site manager|
fill in the yellow form|switch off the lights|wash their hands|hand in their phones|keep a receipt|
test the alarm|wait for a guide|ask for written permission|book a week ahead|pay a deposit|
bring an identity card|clean the tools|report to the front desk|read the safety sheet|
return all keys|wear gloves|save a copy|count the stock|check the oil
""".replace("\n", "").split("|")

OCCASIONS = """entering the laboratory|using the crane|leaving the building|opening a new account|
taking photographs|borrowing a book|working at night|sending a parcel|starting the press|
inviting a guest|ordering supplies|moving heavy goods|publishing a report|driving the van|
closing the till|using the kitchen|changing a password|feeding the animals|visiting the archive|
handling glass
""".replace("\n", "").split("|")

PEOPLE_GROUPS = """visitors|employees|students|drivers|members|guests|volunteers|customers|
contractors|apprentices|nurses|cleaners|researchers|night staff""".replace("\n", "").split("|")

MATERIALS = """oak|steel|copper|glass|wool|cotton|bamboo|clay|leather|aluminium|stone|cork|linen|brass|
recycled plastic|paper""".replace("\n", "").split("|")

MONTHS = """January February March April May June July August September October November
December""".split()

EVERYDAY = """able about above across action after again age agree air all allow almost alone along
already also always amount animal another answer any appear apple area arm around arrive art ask away
baby back bad bag ball bank base basket beach bean bear beautiful become bed before begin behind
believe below best better between big bird black block blood blow blue board boat body bone book both
bottle bottom box boy branch bread break bridge bright bring brother brown build burn business busy
butter button buy cake call camp can capital captain car card care carry case catch cause center
certain chair chance change cheap check child choose church circle city class clean clear clever climb
clock close cloth cloud coast coat coffee cold collect color come common company complete computer
consider contain continue control cook cool copy corn corner cost cotton could count country course
cover cow create cross crowd cry cup current cut dance danger dark date daughter day dead deal dear
decide deep degree depend desert design desk develop die differ difficult dinner direct discover dish
distance divide doctor dog dollar door double doubt down draw dream dress drink drive drop dry during
dust each ear early earth ease east eat edge effect egg eight either electric else end enemy energy
engine enough enter equal escape even evening event ever every exact example except excite exercise
expect explain express eye face fact fair fall false family famous far farm fast father favor fear
feed feel few field fight figure fill final find fine finger finish fire first fish fit five flat
floor flow flower fly follow food foot force foreign forest forget form forward four free fresh friend
from front fruit full fun game garden gas gather general gentle get gift girl give glad glass go gold
good govern grand grass great green ground group grow guess guide hair half hand happen happy hard hat
have head health hear heart heat heavy help here high hill history hit hold hole holiday home hope
horse hot hotel hour house how huge human hundred hunt hurry ice idea imagine inch include increase
industry inside instead interest iron island job join journey judge jump just keep key kill kind king
kitchen know lady lake land language large last late laugh law lay lead learn least leave left leg
less lesson letter level lie life lift light like line list listen little live long look lost loud
love low luck machine main make man many map mark market master matter may mean measure meat meet
memory metal middle might mile milk million mind minute miss modern moment money month moon more
morning most mother motion mountain mouth move much music must name narrow nation nature near neck
need neighbor never new news next nice night nine noise noon north nose note nothing notice now number
object ocean offer office often oil old once one only open opposite orange order other out over own
page pain paint pair paper parent part party pass past path pay peace pencil people perhaps period
person picture piece place plain plan plane plant play please plenty point police poor popular
position possible post power practice prepare present president pretty price print problem produce
promise proper protect proud provide public pull pupil push put quarter queen question quick quiet
quite race radio rain raise reach read ready real reason receive record red region remember repeat
reply report rest result return rice rich ride right ring rise river road rock roll roof room root
rope rose round row rule run safe sail salt same sand save say school science score sea season seat
second secret see seed seem sell send sense sentence serve set seven several shape share sharp sheep
ship shirt shoe shop short should shoulder shout show side sign silent silver simple since sing sister
sit six size skill skin sky sleep slow small smell smile smoke snow social soft soil soldier some son
song soon sound south space speak special speed spell spend spread spring square stage stand star
start state station stay steal steel step stick still stone stop store storm story straight strange
stream street strong student study subject success sudden sugar suit summer sun supply support sure
surface surprise sweet swim system table tail take talk tall taste teach team tell ten test than
thank that then there thick thin thing think third those though thought thousand three through throw
tie time tiny tire today together tomorrow tone tonight tool top total touch toward town track trade
train travel tree triangle trip trouble truck true trust try turn twenty two type uncle under
understand unit until up use usual valley value very view village visit voice wait walk wall want war
warm wash watch water wave way weak wear weather week weight welcome well west what wheel when where
which white who whole why wide wife wild will win wind window wing winter wire wish with woman wonder
wood word work world worry worth write wrong year yellow yes yesterday young your zero""".split()


def is_held_out(name: str) -> bool:
    """True for the invented names that training never shows."""
    return zlib.crc32(name.encode()) % HELD_OUT_SHARE == 0


def invented_word(rng: random.Random, held_out: bool) -> str:
    """A pronounceable capitalised word that means nothing, from the asked side of the split."""
    while True:
        parts = [rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)]
        if rng.random() < 0.6:
            parts.append(rng.choice(ONSETS) + rng.choice(VOWELS))
        parts.append(rng.choice(ENDINGS))
        word = "".join(parts).capitalize()
        if len(word) <= 12 and is_held_out(word) == held_out:
            return word


# GB2312 level 1: the 3,755 Chinese characters in common use, listed from the standard's own order.
HANZI = [
    bytes((high, low)).decode("gb2312")
    for high in range(0xB0, 0xD8)
    for low in range(0xA1, 0xFF)
    if not (high == 0xD7 and low > 0xF9)
]


def invented_hanzi(rng: random.Random, length: int, held_out: bool) -> str:
    """`length` random Chinese characters, from the asked side of the split."""
    while True:
        word = "".join(rng.choice(HANZI) for _ in range(length))
        if is_held_out(word) == held_out:
            return word
