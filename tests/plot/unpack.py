"""What the page does with its data, done in Python: the second witness."""

import base64
import json
import re
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {"u8": "<u1", "u32": "<u4", "u64": "<u8", "f64": "<f8"}


def unpack(value: dict[str, str]) -> NDArray[Any]:
    raw = zlib.decompress(base64.b64decode(value["data"]), wbits=-15)
    return np.frombuffer(raw, TYPES[value["type"]])


def rates(heat: dict[str, Any]) -> NDArray[np.float64]:
    """Access rates of an embedded heat map (rows, columns)."""
    codes = unpack(heat["rate"]).reshape(heat["rows"], heat["columns"])
    return np.where(codes == 255, np.nan, (codes / 250.0) ** 2)


def ages(heat: dict[str, Any]) -> NDArray[np.float64]:
    codes = unpack(heat["age"]).reshape(heat["rows"], heat["columns"])
    scale = np.log1p(heat["top_age_s"] / heat["least_age_s"]) / 250
    return np.where(codes == 255, np.nan, heat["least_age_s"] * np.expm1(codes * scale))


def data_of(page: str) -> dict[str, Any]:
    """The data of a page, found as a browser finds it: up to the first end of a script."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script', page, re.DOTALL | re.IGNORECASE)
    data: dict[str, Any] = json.loads(text)
    return data
