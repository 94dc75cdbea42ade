import pytest

from memtherm.errors import NotSupported
from memtherm.kdamond import features as kernel_features
from memtherm.kdamond.features import Feature
from memtherm.kdamond.ownership import Holder, KdamondSlots
from memtherm.kdamond.parameters import Operations
from memtherm.kdamond.tree import DamonTree, Ownership
from support.fake_damon import RELEASES, FakeDamonTree
from support.requires import require


@pytest.mark.parametrize("release", ["5.18", "5.19", "6.2", "6.6", "6.9", "6.12", "6.15", "6.17", "6.19", "7.1", "7.3"])
def test_an_unfolded_kdamond_tells_everything(tree: FakeDamonTree, release: str) -> None:
    fake = FakeDamonTree(tree.root / "other", release=release)
    fake.rewrite(1)
    owner = Ownership(fake, "0")
    kernel_features.unfold(fake, owner)
    features = kernel_features.look(fake, owner=owner)
    owner.close()
    expected = {one for one in Feature if RELEASES.index(kernel_features.since(one)) <= RELEASES.index(release)}
    # Between two releases with files nothing tells of keywords that came in between.
    unknown = {one for one in Feature if features.has(one) is None}
    assert unknown <= {Feature.YOUNG_FILTER, Feature.LRU_ACTIONS}
    assert features.present == expected - unknown
    assert features.absent == set(Feature) - expected - unknown
    assert features.reasons.keys() == features.present | features.absent


def test_an_empty_tree_tells_nothing(tree: FakeDamonTree) -> None:
    features = kernel_features.look(tree)
    assert not features.present
    assert not features.absent
    assert features.operations is None
    features.require(Feature.PAUSE)


def test_a_foreign_tree_tells_by_what_is_there_and_is_not_written(tree: FakeDamonTree) -> None:
    tree.rewrite(1)
    owner = Ownership(tree, "0")
    tree.write(owner, "contexts/nr_contexts", "1")
    owner.close()
    tree.writes.clear()
    features = kernel_features.look(tree)
    assert features.has(Feature.COLLAPSE), "pause is there, which came with it"
    assert features.has(Feature.NODE_GOALS), "no goal is there, but later files are"
    assert features.has(Feature.PROBE_WEIGHT) is None, "no probe is there"
    assert features.operations == frozenset(Operations)
    assert tree.writes == []


def test_what_lacks_says_since_when_and_why(tree: FakeDamonTree) -> None:
    fake = FakeDamonTree(tree.root / "other", release="6.18")
    fake.rewrite(1)
    owner = Ownership(fake, "0")
    kernel_features.unfold(fake, owner)
    features = kernel_features.look(fake, owner=owner)
    owner.close()
    with pytest.raises(NotSupported, match=r"no action collapse .contexts/0/pause is not there") as problem:
        features.require(Feature.COLLAPSE)
    assert problem.value.hint == "it came with Linux 7.2"


def test_the_tree_of_this_machine_tells_without_a_write() -> None:
    require("root", "damon")
    if KdamondSlots().look().holder is not Holder.OTHER:
        pytest.skip("nobody else uses the tree")
    features = kernel_features.look(DamonTree())
    assert features.has(Feature.COMMIT)
    assert features.operations
