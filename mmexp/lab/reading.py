"""Reading, as Pix2Struct's part among the experts: the tokens of a sign tell what is written on it."""

import torch
from torch import nn

from mmexp.interfaces import FeatureShape
from mmexp.lab.dice import Dice
from mmexp.lab.drawn import NOTHING, SIGN_VALUES, Drawn, labelled_loss, percent_right
from mmexp.lab.objective import Look, Objective


class Reading(Objective):
    """Each token tells whether it is on a sign; those that are tell the number's tens and ones, or the word.

    Args:
        shape: of the encoder's deepest tap; a fact of the network.
    """

    def __init__(self, *, shape: FeatureShape) -> None:
        super().__init__()
        assert shape.grid is not None
        self.grid = shape.grid
        self.sign = nn.Linear(shape.dim, 2)
        self.text = nn.ModuleDict({name: nn.Linear(shape.dim, len(SIGN_VALUES[name])) for name in SIGN_VALUES})

    def loss(self, look: Look, drawn: Drawn, dice: Dice) -> torch.Tensor:
        tokens = look(drawn.views).tokens
        text = (labelled_loss(head(tokens), self.labels(drawn, name)) for name, head in self.text.items())
        return sum(text, start=labelled_loss(self.sign(tokens), drawn.sign_tokens(self.grid).long()))

    def labels(self, drawn: Drawn, name: str) -> torch.Tensor:
        """(B, N), only on signs."""
        return torch.where(drawn.sign_tokens(self.grid), drawn.sign_labels(name)[:, None], NOTHING)

    @torch.no_grad()
    def check(self, look: Look, drawn: Drawn) -> dict[str, float]:
        """Percent right of the tokens on signs, and of all for ``sign``."""
        tokens = look(drawn.views).tokens
        right = {name: percent_right(head(tokens), self.labels(drawn, name)) for name, head in self.text.items()}
        return {"sign": percent_right(self.sign(tokens), drawn.sign_tokens(self.grid).long()), **right}
