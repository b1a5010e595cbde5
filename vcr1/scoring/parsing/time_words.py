"""The words, in English and Chinese, that make times a span, and those that make them something else."""

from __future__ import annotations

from vcr1.scoring.parsing.wording import words_of

OPENING = words_of("( [ { <")
BRACKETS = OPENING | words_of(") ] } >")
JOINS = words_of("to until till til through - ~ 到 至 直到")
ANDS = words_of("and & 和 与")
STARTS = words_of("start starts started starting begin begins began beginning 开始 起始")
ENDS = words_of("end ends ended ending finish finishes finished stop stops 结束 终止")

BESIDE = words_of(
    "the at t time times timestamp mark point second seconds sec s . : =",
    "about approximately approx around roughly circa 第 约 大 为 在 是 于 时 间 点 刻 处 的 左 右 从",
)
"""What may stand beside a time."""

GAP = words_of("it is , ; | and continues continuing lasts lasting goes going runs up on all way 并 持 续 一")
PASSAGE = JOINS | GAP | STARTS
"""What may stand between the two times of a span, such as "从 5 秒开始，到 12 秒"."""

SPARE = (
    BESIDE
    | BRACKETS
    | words_of("answer final event occurs happens interval span segment clip window timestamps range")
    | words_of("from in between is are video , ; - 之间")
)
"""What may stand around two times that only a comma or "and" joins; instants have other words around them."""

LABELS = words_of(
    "event segment span clip scene part step action moment interval section number shot id 片段 事件"
)
"""What a number behind it may count: "Event 1"."""

ONLY_LABELS = words_of(
    "event events scene scenes step steps part parts action actions shot shots number numbers id ids page"
)
"""What whole numbers behind it do count: "steps 3-5"."""

SCORES = words_of("confidence score probability chapter page")
PARTS_OF = words_of("duration way length total whole")
"""What fractions are of: "0.25 to 0.5 of the duration"."""

HAN_EDGES = words_of("开始 起始 结束 终止")
HAN_NUMBERS = words_of("一 二 三 四 五 六 七 八 九 十 百 千 两 几 半")
COUNTERS = words_of("段 个 次 人 只 辆 名 位")
LENGTHS = words_of("duration lasting lasts length total for 共 续")

NOT_FROM_START = words_of(
    "last final remaining for lasts lasting lasted every takes take took taking within duration length",
    "first next after before 最后 倒数 续 每 长 共 隔 用 了 前 之前 半",
)
"""What stands before times that do not count from the start of the video: "the last 5 to 10 seconds"."""

ELSEWHERE = words_of(
    "before after later earlier prior ago left remaining long am pm 前 后 之前 之后 以前 以后"
)
"""What stands behind such times: "5 to 10 seconds before the end"."""

BEHIND_TIMES = (
    JOINS
    | ANDS
    | STARTS
    | ENDS
    | BESIDE
    | GAP
    | ELSEWHERE
    | words_of("in of when while as or where during because for are was that with within inside inclusive")
    | words_of("from which then between")
)
"""The words behind a whole number that may be a time; another is what it counts: "2 men"."""

DENIALS = words_of(
    "not never cannot no neither nor except outside unclear unknown unsure unable uncertain absent missing",
    "wrong incorrect false exclude excludes excluding excluded rule rules ruled minus without setminus ∩ or",
    "correction corrected instead 不 没有 没 非 无 除 排除 外 错",
)
"""What makes an answer no claim of a span."""

FOREIGN = words_of(
    "frame frames frm frms fps percent percentage % normalized normalised fraction fractions ratio relative",
    "ms millisecond milliseconds min mins minute minutes hour hours index indices image images",
    "timestep timesteps ff f 帧 毫 分 张 幅 图",
)
"""What says that numbers without a unit count something other than seconds."""
