"""Texts for tokenizers: all that the package asks about, and odd ones."""

import csv
import random
from pathlib import Path

import diffjax


def package_texts():
    """Every class name and prompt of the package."""
    assets = Path(diffjax.__file__).parent / "assets"
    names = [
        line
        for path in sorted(assets.glob("class*/*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    prompts = []
    for path in sorted((assets / "prompts").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            prompts += [row["prompt"] for row in csv.DictReader(file)]
    assert len(names) > 1500 and len(prompts) > 1500
    return names + prompts


PIECES = [
    *("<|startoftext|>", "<|endoftext|>", "<|STARTOFTEXT|>", "<|EndOfText|>", "<|"),
    *("!", "!!", " !", "! ", "<pad>", "<|pad|>", "|>", "</w>", "a</w>", "Ġ", "Ã©"),
    *("<b>bold</b>", "&amp;", "&lt;p&gt;", "&#39;", "<br/>", "http://a.b/c?d=e#f"),
    *("'s", "'S", "don't", "’s", "“quoted”", "…", "—", "¿", "½", "x²", "№", "ǅ", "ﬁ"),
    *("İstanbul", "ß", "ẞ", "ſ", "σς", "Σ", "é", "e\u0301", "ñ", "Å", "\u212b", "ⅷ"),
    *("日本語", "中文字符", "한국어", "ไทย", "العربية", "עברית", "हिन्दी", "Ελληνικά"),
    *("🐈", "🐈‍⬛", "👩🏽‍🚀", "🇩🇪", "☃️", "❤", "𝔘𝔫𝔦", "\U000e0041", "\U0010ffff"),
    *("\x00", "\x01", "\x07", "\x1b[0m", "\x7f", "\x85", "\xa0", "\xad", "\u200b"),
    *("\u200d", "\u2028", "\u2029", "\u202e", "\u3000", "\ufeff", "\ufffd", "\t"),
    *("\n", "\r\n", "   ", "\u2003", "1234567890", "3.14", "1,000", "٣", "Ⅳ", "_"),
    *("a_b", "cat", "CAT", "cAt", "photo of a", "#hashtag", "@user", "(((", "$%^&*"),
]


def odd_texts(n):
    """Texts of odd pieces, some of any code points, some far too long."""
    draw = random.Random(13)

    def any_point():
        point = draw.choice([0x80, 0x250, 0x3000, 0x10000, 0x110000])
        point = draw.randrange(point)
        return chr(point if not 0xD800 <= point < 0xE000 else 0x20)

    texts = []
    for k in range(n):
        if k % 3:
            pieces = draw.choices(PIECES, k=draw.randrange(12))
            texts.append(draw.choice(["", " "]).join(pieces))
        else:
            texts.append("".join(any_point() for _ in range(draw.randrange(40))))
        if k % 50 == 0:
            texts[-1] = (texts[-1] or "long ") * 60
    return texts
