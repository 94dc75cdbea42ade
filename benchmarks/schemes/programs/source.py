"""source.py PATH FUNCTIONS SEED: writes a C file with many functions of some size, for the compiler to work on."""

import random
import sys
from pathlib import Path

_STATEMENTS = (
    "for (int i = 0; i < n; i++) a[i & 63] += {x} * a[(i + {y}) & 63] ^ s;",
    "if ((s & {x}) > n) s = s * {y}u + a[s & 63]; else s ^= a[n & 63] >> ({y} & 15);",
    "switch ((s >> {z}) & 7) {{ case 0: s += {x}; break; case 1: s -= n; break; case 2: s *= {y}; break; "
    "case 5: a[n & 63] = s; break; default: s ^= {y}; }}",
    "while (s > {x}u) {{ s = s / 3 + a[s & 63]; if (s == {y}u) break; }}",
    "{{ double d = s * 0.{x} + n; for (int k = 0; k < {z}; k++) d = d * d - {y}.5; s += (unsigned)d; }}",
)


def _function(number: int, draw: random.Random) -> str:
    lines = [f"unsigned f{number}(unsigned *a, int n, unsigned s) {{"]
    for _ in range(draw.randint(12, 28)):
        form = draw.choice(_STATEMENTS)
        values = {"x": draw.randint(2, 999), "y": draw.randint(2, 63), "z": draw.randint(2, 20)}
        lines.append("    " + form.format(**values))
        if number and draw.random() < 0.2:
            lines.append(f"    s += f{draw.randrange(number)}(a, n - 1, s);")
    return "\n".join([*lines, "    return s;", "}", ""])


def main() -> None:
    path, functions, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(seed)
    path.write_text("\n".join(_function(number, draw) for number in range(functions)))


if __name__ == "__main__":
    main()
