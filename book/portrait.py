"""The phase portrait that needs no kernel: one HTML file whose games are those of `toy.dirac`.

`python -m book.portrait` writes `book/_static/portrait.html`. Each game's vector field and characteristic
polynomial are sympy's, written as JavaScript; the page around them is `portrait_template.html`. So there is
one description of a game, and a test runs the page's own integrator against `toy.dirac`.
"""

import json
from pathlib import Path

import sympy as sp

from toy import dirac
from toy.dirac import GAMES, Game

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "portrait_template.html"
PAGE = HERE / "_static" / "portrait.html"

RANGES = {
    "gamma": ("Strength of the penalty, γ", 0.0, 3.0),
    "slope": ("Slope that the penalty asks for", 0.0, 2.0),
    "clip": ("Bound of the clipping, c", 0.1, 2.0),
    "sigma": ("Noise, σ", 0.0, 2.0),
    "alpha": ("Decay of the average per unit of time, α", 0.01, 0.99),
    "beta": ("Share of teacher samples, β", 0.0, 1.0),
}
"""Label, smallest and largest value of each parameter's slider."""


def javascript(expression: sp.Expr) -> str:
    """An expression as JavaScript on one line; the page defines `sigmoid`."""
    code = sp.jscode(expression, user_functions={"sigmoid": "sigmoid"})
    return " ".join(code.split())


def arguments(symbols: object) -> str:
    """Symbols as a JavaScript pattern that takes an array apart."""
    return f"[{', '.join(map(str, symbols))}]"


def game_code(game: Game) -> str:
    """One entry of the page's table of games."""
    field = dirac.vector_field(game)
    states, parameters = arguments(game.states), arguments(game.parameters)
    sliders = []
    for symbol, value in game.parameters.items():
        label, low, high = RANGES[str(symbol)]
        sliders.append(
            {"name": str(symbol), "label": label, "value": value, "min": low, "max": high, "step": 0.01}
        )
    components = ", ".join(map(javascript, field))
    lines = [
        f"title: {json.dumps(game.title, ensure_ascii=False)}",
        f"states: {len(game.states)}",
        f"noisy: {json.dumps(field.has(dirac.z))}",
        f"parameters: {json.dumps(sliders, ensure_ascii=False)}",
        f"field: ({states}, {parameters}, z) => [{components}]",
    ]
    if game.bound is not None:
        lines.append(f"bound: ({parameters}) => {javascript(game.bound)}")
    for memory in game.memory.values():
        lines.append(f"average: ({states}, {parameters}) => {javascript(memory.average)}")
    try:
        coefficients = dirac.characteristic_polynomial(game).all_coeffs()
    except ValueError:  # a field that jumps at the equilibrium has no Jacobian there
        pass
    else:
        lines.append(f"polynomial: ({parameters}) => [{', '.join(map(javascript, coefficients))}]")
    body = "".join(f"    {line},\n" for line in lines)
    return f"  {json.dumps(game.name)}: {{\n{body}  }},\n"


def page() -> str:
    """The whole page."""
    before, _, after = TEMPLATE.read_text("utf-8").partition("/* GAMES */\n")
    return before + "".join(map(game_code, GAMES.values())) + after


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes")
