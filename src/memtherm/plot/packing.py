"""Numbers and texts → what can lie in an HTML page: small, exact enough, and harmless."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Numbers = NDArray[np.float64]

NO_DATA = 255
TOP_CODE = 250
_TYPES = {"u8": "<u1", "u32": "<u4", "u64": "<u8", "f64": "<f8"}
_MAX_TEXT = 400


def packed(values: NDArray[Any], kind: str) -> dict[str, str]:
    """An array as raw deflate (RFC 1951) in base64; `kind` is u8, u32, u64 or f64, little-endian."""
    compressor = zlib.compressobj(level=9, wbits=-15)
    raw = np.ascontiguousarray(values, dtype=_TYPES[kind]).tobytes()
    return {"type": kind, "data": base64.b64encode(compressor.compress(raw) + compressor.flush()).decode("ascii")}


def rate_codes(rate: _Numbers) -> NDArray[np.uint8]:
    """Access rates (0..1) as (code / 250)²: within 0.5 % of 1, finer below; no access at all, and it alone, is 0."""
    known = np.isfinite(rate)
    code = np.rint(TOP_CODE * np.sqrt(np.where(known, rate, 0)))
    code = np.where(rate > 0, np.maximum(code, 1), code)
    return np.where(known, code, NO_DATA).astype(np.uint8)


def age_codes(age_s: _Numbers, *, least_age_s: float, top_age_s: float) -> NDArray[np.uint8]:
    """Ages on a logarithmic scale: `least × (exp(code × scale) − 1)`, where code 250 is the top."""
    known = np.isfinite(age_s)
    scale = np.log1p(top_age_s / least_age_s) / TOP_CODE
    code = np.rint(np.log1p(np.where(known, age_s, 0) / least_age_s) / scale)
    return np.where(known, np.minimum(code, TOP_CODE), NO_DATA).astype(np.uint8)


def halved(values: _Numbers, weights: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Each two columns as one: weighted mean of what is known, and the mean of the weights."""
    if values.shape[1] % 2:
        blank = np.full((len(values), 1), np.nan)
        values, weights = np.hstack([values, blank]), np.hstack([weights, np.zeros_like(blank)])
    weight = np.where(np.isfinite(values), weights, 0)
    total = weight[:, ::2] + weight[:, 1::2]
    weighted = np.where(weight > 0, values, 0) * weight
    mean = np.full(total.shape, np.nan)
    np.divide(weighted[:, ::2] + weighted[:, 1::2], total, out=mean, where=total > 0)
    return mean, total / 2


def thinned(time_s: _Numbers, values: _Numbers, *, points: int) -> tuple[_Numbers, _Numbers]:
    """At most about so many points of a line: the least and the most of each stretch, so that no peak is lost."""
    if len(values) <= points:
        return time_s, values
    border = np.unique(np.linspace(0, len(values), max(1, points // 2) + 1).astype(np.int64))[:-1]
    stretch = np.repeat(np.arange(len(border)), np.diff(np.append(border, len(values))))
    # NaN sorts last: it is kept where a stretch holds nothing else.
    order = np.lexsort((values, stretch))
    sorted_known = np.isfinite(values[order])
    count = np.add.reduceat(sorted_known.astype(np.int64), border)
    least, most = order[border], order[border + np.maximum(count, 1) - 1]
    chosen = np.unique(np.concatenate([least, most]))
    return time_s[chosen], values[chosen]


def printable(text: str, *, most: int = _MAX_TEXT) -> str:
    """A text from a record without what could mislead a reader: control characters, line and direction marks.

    Of a long one the middle is left out: paths tell most at both ends.
    """
    clean = "".join(one if one.isprintable() else one.encode("unicode_escape", "replace").decode() for one in text)
    half = most // 2
    return clean if len(clean) <= most else f"{clean[:half]}…{clean[-half:]}"


def script_json(value: Any) -> str:
    """JSON that can stand in a <script>: nothing in it is markup, all of it is ASCII."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # Only inside of strings can these be, and there each has this other spelling.
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
