"""Conversations in LLaVA's format: the three files of LLaVA-Instruct-150K, and ShareGPT without images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmexp.interchange.datasets.base import Record, field, load_list

LLAVA_FILES = ("complex_reasoning_77k.json", "conversation_58k.json", "detail_23k.json")
ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


class Llava150K:
    """All three files, one after the other."""

    needs = "folder with complex_reasoning_77k.json, conversation_58k.json and detail_23k.json"

    def records(self, raw: Path) -> Iterator[Record]:
        for name in LLAVA_FILES:
            for place, item in enumerate(load_list(raw / name)):
                where = f"{raw / name}[{place}]"
                yield {
                    "id": f"{name.split('_')[0]}_{field(item, 'id', where)}",
                    "image": field(item, "image", where),
                    "conversations": field(item, "conversations", where),
                }


class ShareGpt:
    """What a person did not begin and what has no answer is cut off; a conversation without exchange is left out."""

    needs = "folder with llava_v1_5_sharegpt40k.json"

    def records(self, raw: Path) -> Iterator[Record]:
        path = raw / "llava_v1_5_sharegpt40k.json"
        for place, item in enumerate(load_list(path)):
            entries = exchanges(field(item, "conversations", f"{path}[{place}]"))
            if entries:
                yield {"id": str(item.get("id", place)), "conversations": entries}


def exchanges(entries: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The longest beginning, from the first question on, in which questions and non-empty answers alternate.

    The image marker becomes a plain word: there is no image.
    """
    kept: list[dict[str, str]] = []
    for entry in entries:
        role = ROLES.get(entry["from"])
        if not kept and role != "human":
            continue
        text = str(entry["value"]).replace("<image>", "image").strip()
        if role != ("human", "gpt")[len(kept) % 2] or not text:
            break
        kept.append({"from": role, "value": text})
    return kept[: len(kept) // 2 * 2]
