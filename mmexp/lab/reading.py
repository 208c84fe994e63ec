"""Reading, as Pix2Struct's part among the experts: the tokens of a sign predict what is written on it."""

import numpy as np
import torch
from torch import nn

from mmexp.interfaces import FeatureShape
from mmexp.lab.drawn import NOTHING, SIGN_VALUES, Drawn, labelled_loss, percent_right
from mmexp.lab.objective import Look, Objective
from mmexp.lab.rng import Rng
from mmexp.lab.world import SIGN_CELLS

SIGNS_TRIED = 16
"""Signs of other images that are tried for one page."""


class Reading(Objective):
    """Each token predicts whether it is on a sign; the mean of a sign's tokens the tens and ones, or the word.

    Some images of a batch become pages, full of the signs of others, as Pix2Struct is pre-trained on pages full of text
    (arXiv:2210.03347): several times as many signs in a step.

    Args:
        pages_percent: share of a batch that becomes pages, 0..100.
        shape: of the encoder's deepest tap; a fact of the network.
    """

    def __init__(self, *, pages_percent: int, shape: FeatureShape) -> None:
        super().__init__()
        assert shape.grid is not None
        self.pages_percent, self.grid = pages_percent, shape.grid
        self.sign = nn.Linear(shape.dim, 2)
        self.text = nn.ModuleDict({name: nn.Linear(shape.dim, len(SIGN_VALUES[name])) for name in SIGN_VALUES})

    def loss(self, look: Look, drawn: Drawn, rng: Rng) -> torch.Tensor:
        views, sources = with_pages(drawn, len(drawn.scenes) * self.pages_percent // 100, rng)
        tokens, sources = look(views).tokens, self.per_token(sources)
        signs, scenes = means_of_signs(tokens, sources)
        text = (labelled_loss(head(signs), drawn.sign_labels(name)[scenes]) for name, head in self.text.items())
        return sum(text, start=labelled_loss(self.sign(tokens), (sources != NOTHING).long()))

    def per_token(self, sources: torch.Tensor) -> torch.Tensor:
        """(B, cells, cells) -> (B, N)."""
        rows, columns = (side // sources.shape[1] for side in self.grid)
        return sources.repeat_interleave(rows, 1).repeat_interleave(columns, 2).flatten(1)

    @torch.no_grad()
    def check(self, look: Look, drawn: Drawn) -> dict[str, float]:
        """Percent right of the signs, and of all tokens for ``sign``."""
        views, sources = with_pages(drawn, 0, Rng(0))
        tokens, sources = look(views).tokens, self.per_token(sources)
        signs, scenes = means_of_signs(tokens, sources)
        found = {"sign": percent_right(self.sign(tokens), (sources != NOTHING).long())}
        for name, head in self.text.items():
            found[name] = percent_right(head(signs), drawn.sign_labels(name)[scenes])
        return found


def means_of_signs(tokens: torch.Tensor, sources: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean token of each sign (S, D) and its scene (S,); ``sources`` (B, N): the scene whose sign is on a token."""
    on_sign = sources != NOTHING
    numbers = (torch.arange(len(sources))[:, None] * len(sources) + sources)[on_sign]
    pairs, place, size = numbers.unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(pairs), tokens.shape[-1]).index_add(0, place, tokens[on_sign])
    return total / size[:, None], pairs % len(sources)


def with_pages(drawn: Drawn, pages: int, rng: Rng) -> tuple[torch.Tensor, torch.Tensor]:
    """The views, and the scene whose sign is on each cell (B, cells, cells), or ``NOTHING``.

    The first ``pages`` images get signs of others on the same cells, over whatever is there but another sign.
    """
    views, cells = drawn.views.clone(), drawn.spec.grid
    height, width = (side // cells for side in views.shape[2:])
    sources = np.full((len(views), cells, cells), NOTHING)
    signs = [(image, scene.sign) for image, scene in enumerate(drawn.scenes) if scene.sign]
    own = {image: (image, sign) for image, sign in signs}
    for page in range(len(views)):
        tried = [own[page]] if page in own else []
        if page < pages and signs:
            tried += [signs[place] for place in rng.sample(len(signs), min(SIGNS_TRIED, len(signs)))]
        for image, sign in tried:
            place = sources[page, sign.row, sign.column : sign.column + SIGN_CELLS]
            if (place != NOTHING).any():
                continue
            place[:] = image
            if image != page:
                top, left = sign.row * height, sign.column * width
                part = (slice(None), slice(top, top + height), slice(left, left + SIGN_CELLS * width))
                views[page][part] = drawn.views[image][part]
    return views, torch.from_numpy(sources)
