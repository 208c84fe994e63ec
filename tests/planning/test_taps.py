"""All trials of a sweep are told the depths that they need together, encoder by encoder."""

from typing import Any

from mmexp.planning.taps import share_taps
from tests.tiny import clip_node, tiny_spec


def config(layer: int, **encoder: Any) -> dict[str, Any]:
    layers = {"_target_": "mmexp.model.feature_layers.single.SingleLayer", "layer": layer}
    return {"evaluation": {"model": tiny_spec(encoders={"clip": clip_node(feature_layers=layers, **encoder)})}}


def test_taps_of_one_encoder_are_joined_and_another_encoder_is_apart() -> None:
    runtimes: list[list[dict[str, Any]]] = [[{}, {}], [{}], [{}], [{"devices": 1}]]
    blind = {"evaluation": {"model": {"llm": tiny_spec()["llm"]}}}
    share_taps([config(-1), config(-2), config(-1, final_norm=True, model_class="SiglipVisionModel"), blind], runtimes)
    assert runtimes[0] == [{"feature_taps": {"clip": [4, 3]}}] * 2
    assert runtimes[1] == [{"feature_taps": {"clip": [4, 3]}}]
    assert runtimes[2] == [{"feature_taps": {"clip": [4]}}]
    assert runtimes[3] == [{"devices": 1, "feature_taps": {}}]
