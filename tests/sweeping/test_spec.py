import pytest

from mmexp.config.overrides import as_text
from mmexp.config.schema import read_node
from mmexp.errors import UserError
from mmexp.sweeping.search.table import Table
from mmexp.sweeping.spec.command_line import read_command_line, slug
from mmexp.sweeping.spec.schema import SweepNode
from mmexp.sweeping.spec.table import expand

NODE = {
    "metric": "overall",
    "baseline": "linear",
    "seeds": [0, 1],
    "rows": {
        "linear": {"overrides": ["projector=linear"]},
        "few": {
            "overrides": ["projector=resampler", "projector.num_tokens=${sizes.few}"],
            "published": {"overall": 1.0},
        },
    },
}


def requests(node=NODE, arguments=(), blind=False):
    return expand(read_node(SweepNode, node, "sweep"), read_command_line(arguments), blind=blind)


class Sweep:
    """Stands for an open sweep of a file."""

    is_multirun, adds_blind = False, False

    def __init__(self, node):
        self.raw, self.line = node, read_command_line(["sweeps=x"])
        self.node = read_node(SweepNode, node, "sweep")
        self.seeds = tuple(self.node.seeds)


def test_rows_times_seeds_with_seeds_last():
    assert [(r.row, r.seed) for r in requests()] == [("linear", 0), ("few", 0), ("linear", 1), ("few", 1)]
    assert requests()[1].overrides == ("projector=resampler", "projector.num_tokens=${sizes.few}")


def test_axes_cross_the_rows():
    node = {**NODE, "axes": {"llm": ["base", "large"], "encoder": [["clip"], ["clip", "sam"]]}, "seeds": [0]}
    found = requests(node)
    assert len(found) == 2 * 2 * 2
    assert found[1].label == "linear [llm=base, encoder=[clip,sam]]"
    assert found[1].overrides == ("projector=linear", "llm=base", "encoder=[clip,sam]")


def test_comma_overrides_are_axes_and_seeds():
    found = requests(arguments=["sweeps=x", "llm=base,large", "seed=3,4", "trainer=default"])
    assert {(r.axes["llm"], r.seed) for r in found} == {("base", 3), ("base", 4), ("large", 3), ("large", 4)}
    assert found[0].overrides[:2] == ("sweeps=x", "trainer=default")


def test_without_rows_each_point_is_a_row():
    found = requests({}, ["projector=linear,mlp2x_gelu", "seed=0,1"])
    assert [(r.row, r.axes, r.seed) for r in found] == [
        ("projector=linear", {}, 0),
        ("projector=mlp2x_gelu", {}, 0),
        ("projector=linear", {}, 1),
        ("projector=mlp2x_gelu", {}, 1),
    ]


def test_blind_row_is_the_baseline_without_images():
    found = [r for r in requests(blind=True) if r.row == "blind"]
    assert {r.overrides for r in found} == {("projector=linear", "recipe=blind")}
    assert [r.seed for r in found] == [0, 1]
    assert not [r for r in requests({}, ["llm=a,b"], blind=True) if r.row == "blind"]
    own = {**NODE, "rows": {**NODE["rows"], "blind": {"overrides": ["recipe=other"]}}}
    assert [r.overrides for r in requests(own, blind=True) if r.row == "blind"] == [("recipe=other",)] * 2


def test_zipped_axes_are_varied_together():
    node = {**NODE, "axes": {"llm": ["base", "large"]}, "zip": {"trainer": ["a", "b"], "turns": ["x", "y"]}}
    found = [r for r in requests({**node, "seeds": [0]}) if r.row == "few"]
    assert [tuple(r.axes.values()) for r in found] == [
        ("base", "a", "x"),
        ("base", "b", "y"),
        ("large", "a", "x"),
        ("large", "b", "y"),
    ]
    assert found[1].overrides[-3:] == ("llm=base", "trainer=b", "turns=y")
    assert [r.row for r in requests({"zip": node["zip"]})] == ["trainer=a, turns=x", "trainer=b, turns=y"]


def test_excluded_points_are_left_out():
    node = {**NODE, "axes": {"llm": ["base", "large"], "encoder": [["clip"], ["clip", "sam"]]}, "seeds": [0]}
    left = requests({**node, "exclude": [{"row": "few", "llm": "large"}, {"encoder": ["clip", "sam"]}]})
    assert [r.label for r in left] == [
        "linear [llm=base, encoder=[clip]]",
        "linear [llm=large, encoder=[clip]]",
        "few [llm=base, encoder=[clip]]",
    ]


def test_rows_of_a_ladder_add_up_and_the_later_of_one_key_counts():
    rows = {
        "base": {},
        "mlp": {"overrides": ["projector=mlp2x_gelu"]},
        "data": {"overrides": ["+data.x=1", "trainer=long"]},
        "large": {"overrides": ["llm=large", "data.x=2", "projector=linear"]},
    }
    found = requests({"rows": rows, "cumulative": True, "baseline": "mlp", "seeds": [0]}, blind=True)
    assert {r.row: r.overrides for r in found} == {
        "base": (),
        "mlp": ("projector=mlp2x_gelu",),
        "data": ("projector=mlp2x_gelu", "+data.x=1", "trainer=long"),
        "large": ("projector=linear", "data.x=2", "trainer=long", "llm=large"),
        "blind": ("projector=mlp2x_gelu", "recipe=blind"),
    }


def test_only_selects_rows_and_keeps_the_others_known():
    found = requests({**NODE, "only": ["few"]})
    assert [(r.row, r.selected) for r in found if r.seed == 0] == [("linear", False), ("few", True)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["projector=mlp2x_gelu"], "projector: row 'linear' sets it"),
        (["projector=a,b"], "projector: row 'linear' sets it .*so the command line cannot"),
        (["seed=a"], "seed=a: 'a' must be an integer"),
        (["x=interval(1,2)"], "an interval has no list"),
        (["x=[1"], "is not a valid override"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message):
    with pytest.raises(UserError, match=message):
        requests(arguments=arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [1]}, "sweep.seed: no such key; did you mean 'seeds'"),
        ({"baseline": "liner"}, "no row 'liner'; did you mean 'linear'"),
        ({"only": ["fw"]}, "no row 'fw'; did you mean 'few'"),
        ({"findings": [{"check": "fw.x > linear.x"}]}, r"sweep.findings\[0\]: .*row 'fw'; did you mean 'few'"),
        ({"findings": [{"check": "few.x"}]}, r"sweep.findings\[0\]: check 'few.x' must be comparisons"),
        ({"findings": [{"chek": "few.x > linear.x"}]}, r"sweep.findings\[0\].chek: no such key; did you mean 'check'"),
        ({"findings": [{"check": "few.x > 1", "clam": ""}]}, r"sweep.findings\[0\].clam: .*'claim'"),
        ({"findings": "few.x > linear.x"}, "sweep.findings: 'few.x > linear.x' must be a list"),
        ({"rows": {}}, "needs sweep.rows"),
        ({"rows": ["a"]}, r"sweep.rows: \['a'\] must be a mapping"),
        ({"rows": {"a": ["projector=linear"]}, "baseline": None}, r"sweep.rows.a: .* must be a mapping .overrides"),
        (
            {"rows": {"a": {"override": []}}, "baseline": None},
            "sweep.rows.a.override: no such key; did you mean 'overrides'",
        ),
        ({"seeds": ["a"]}, r"sweep.seeds\[0\]: 'a' must be an integer"),
        ({"axes": {"llm": "base"}}, "sweep.axes.llm: 'base' must be a list"),
        ({"axes": {"projector": ["linear"]}}, "so sweep.axes cannot"),
        ({"zip": {"llm": ["base"], "trainer": ["a", "b"]}}, "one length; llm has 1, trainer has 2 values"),
        ({"zip": {"llm": ["base"]}, "axes": {"llm": ["base"]}}, r"sweep.zip.llm: is an axis of its own too"),
        ({"zip": {"projector": ["linear"]}}, "so sweep.axes cannot"),
        ({"zip": ["llm"]}, r"sweep.zip: .* must be a mapping"),
        ({"exclude": [{"row": "fw"}]}, r"sweep.exclude\[0\].row: no value 'fw'; did you mean 'few'"),
        ({"exclude": [{"lm": "base"}], "axes": {"llm": ["base"]}}, "no such axis; did you mean 'llm'"),
        ({"exclude": [{"row": "few"}, {"row": "linear"}]}, "leaves nothing"),
        ({"exclude": ["few"]}, r"sweep.exclude\[0\]: 'few' must be a mapping"),
        ({"cumulative": "yes"}, "sweep.cumulative: 'yes' must be true or false"),
        ({"rows": {"a": {"overrides": ["llm=base,large"]}}, "baseline": None}, "use sweep.axes"),
        ({"rows": {"a": {"overrides": ["seed=2"]}}, "baseline": None}, "seeds belong to sweep.seeds"),
        ({"rows": {"a": {"overrides": ["hydra.launcher.n_jobs=2"]}}, "baseline": None}, "is of the whole sweep"),
        ({"rows": {"a": {"overrides": ["x"]}}, "baseline": None}, r"^sweep.rows.a: 'x' is not a valid override"),
        ({"search": {}, "rows": {"a": {"overrides": []}}, "seeds": [-1]}, "must be greater than or equal to 0"),
    ],
)
def test_mistakes_in_the_sweep_node(changes, message):
    node = {**NODE, **changes}
    with pytest.raises(UserError, match=message):
        Table(sweep=Sweep(node))


def test_the_name_says_what_the_command_line_changes():
    assert read_command_line(["sweeps=eagle/fusion"]).name == "eagle/fusion"
    own = ["sweeps=eagle/fusion", "++sweep.seeds=[1]", "hydra.launcher.n_jobs=3", "paths.root=/x"]
    assert read_command_line(own).name == "eagle/fusion"
    assert read_command_line([*own, "llm=base,large", "a.b=1"]).name == "eagle/fusion@a.b=1,llm=base,large"
    assert read_command_line(["projector=a,b"]).name == "multirun/projector=a,b"
    assert read_command_line(["data=[a/b]"]).name.startswith("multirun/data=_a_b_-")


def test_names_of_different_overrides_differ():
    assert slug(["a=x/y"]) != slug(["a=x_y"]) != slug(["a=x:y"])
    assert len(slug([f"key{i}=value" for i in range(30)])) < 100


def test_values_as_overrides():
    values = (None, True, 1.5, ["a", [1]], {"k": "v"})
    assert [as_text(value) for value in values] == ["null", "true", "1.5", "[a,[1]]", "{k:v}"]
