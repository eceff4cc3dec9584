"""D4RL's own `-v2` files of the four locomotion tasks: where they are, and proof that a file is one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from o2o.config.dataset_names import own_name
from o2o.config.schema import Dataset, Paths
from o2o.datasets import mix
from o2o.datasets.files.digest import sha256
from o2o.datasets.files.download import download
from o2o.errors import ConfigError

SOURCES = (
    "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/",
    "https://huggingface.co/datasets/imone/D4RL/resolve/main/",
)
"""Where the files lie under their own names: D4RL's host, and a copy for when that is down, as in 2025 and 2026."""
PAPERS = ("medium-v2", "medium-replay-v2")
"""The qualities that the paper uses, of each task."""


class PublishedFile(NamedTuple):
    """One published file."""

    bytes: int
    sha256: str


class Expected(NamedTuple):
    """Published figures of a set's complete episodes and their undiscounted returns; None where there are none."""

    episodes: int
    complete_rows: int | None = None
    return_mean: float | None = None
    return_std: float | None = None
    return_min: float | None = None
    return_max: float | None = None


# Sizes and checksums are those under which TensorFlow Datasets fetches the same files.
SETS = {
    "hopper-medium-v2": PublishedFile(
        152_756_557, "5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0"
    ),
    "halfcheetah-medium-v2": PublishedFile(
        237_727_262, "41324e8487a9556d8cfa4538827f8937f4d63dae3030825ebc9f3a726ed08ca0"
    ),
    "walker2d-medium-v2": PublishedFile(
        232_254_996, "cf00f43add04c17fdfc2958dd581dea0851b2e5bedbe6fda073758a8f841aeda"
    ),
    "ant-medium-v2": PublishedFile(
        376_239_825, "461c03b9f70f40d66b47608a92965e4ef3642bd9cdb1320d10acc92754167137"
    ),
    "hopper-medium-replay-v2": PublishedFile(
        75_854_457, "e121c5f7c9857a307baa9edc6a2c3b48e85fedb9ac316ecddd0f48ca7ef4e39b"
    ),
    "halfcheetah-medium-replay-v2": PublishedFile(
        59_448_533, "48d494a4770c11f48260736dec090b78bdca8375647ed4d24bfa5b6610c7f683"
    ),
    "walker2d-medium-replay-v2": PublishedFile(
        86_323_963, "e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db"
    ),
    "ant-medium-replay-v2": PublishedFile(
        136_482_252, "844c4e5743ef51091f2106a3570b257fb149032c4743f8a5f02f40adc3b42a46"
    ),
    "hopper-random-v2": PublishedFile(
        152_525_345, "63103ef7059db4c0819bd054f4e83ff339030b50bcdb46bdbe50385f234b5054"
    ),
    "halfcheetah-random-v2": PublishedFile(
        237_338_037, "25407aef85b5d16c0f36b4149341edb4acc6a9e88c1db529b2de19e7464874ba"
    ),
    "walker2d-random-v2": PublishedFile(
        216_109_364, "4e863bb6090cf4a461548bd470564b32f1ae5b32ef3085f816b2ede7f092e7fa"
    ),
    "ant-random-v2": PublishedFile(
        384_466_831, "93cc10893eed2b8e17f81d1aa51dc23d27c5ca101a3804249f6bd038c6f06055"
    ),
    "hopper-expert-v2": PublishedFile(
        152_427_435, "01aa219a5f8eea5e639eccdc636ec2bf40e317159a95cf4bf6e985f16909941b"
    ),
    "halfcheetah-expert-v2": PublishedFile(
        237_464_597, "d9fe53bb994eb1e20a99b4fa3412cd76a1bb7966a7ff55e0fcbdd6081bd2965f"
    ),
    "walker2d-expert-v2": PublishedFile(
        230_567_195, "2985dc3d436a8baa10e8f43f946fe1d7c6337a4e4fbc65def70618093b18c59a"
    ),
    "ant-expert-v2": PublishedFile(
        373_231_677, "fa22531ca79ea051006fa48bb652120d2e12c813919c530369a03c2688311b0f"
    ),
    "hopper-medium-expert-v2": PublishedFile(
        304_537_315, "9d51ad87f8c905be3880d84c6140bcdb7fbf39a19e046a237f238ba34fec9e26"
    ),
    "halfcheetah-medium-expert-v2": PublishedFile(
        474_567_252, "015db75dae5bbe8e94029b71fa0bafc2073365df0c94744e71031189f3f79c06"
    ),
    "walker2d-medium-expert-v2": PublishedFile(
        462_197_079, "6b8d7f868c45bbaedf460be797fb7271b46dee6ebe45fe7a64319f2005b59a04"
    ),
    "ant-medium-expert-v2": PublishedFile(
        748_335_217, "8cfb64e62d8944b5d9dada5f0cfc13a295fafe0c6ba58b778e32ebf16c95aef1"
    ),
    "hopper-full-replay-v2": PublishedFile(
        187_998_921, "56baf95963c51c1e964049a974566c50ba80f289390565523e60c0ba83e0982e"
    ),
    "halfcheetah-full-replay-v2": PublishedFile(
        291_381_762, "27fdf7ea86e5a2cbd24d611ae9e703c86ec2e8e52823abc69dd9af6afb3a36c0"
    ),
    "walker2d-full-replay-v2": PublishedFile(
        285_115_514, "f2720f9d27b2acef6ec9a7d9ad3b80b6c2078ad4467cee668a81e3b3c80bcf2a"
    ),
    "ant-full-replay-v2": PublishedFile(
        449_390_167, "b95b0a7f34b1d5d1bedfded0f8e9cfc508b59de83cd4cbfb65b18dbd5056f26c"
    ),
}

EXPECTED = {
    "halfcheetah-medium-v2": Expected(
        1000, 1_000_000, 4770.3349609375, 355.7503967285, -310.2341918945, 5309.3793945313
    ),
    "halfcheetah-medium-replay-v2": Expected(
        202, 202_000, 3093.2856445313, 1680.6939697266, -638.4852905273, 4985.1416015625
    ),
    "hopper-medium-v2": Expected(
        2186, 999_906, 1422.0561523438, 378.953704834, 315.8680114746, 3222.3605957031
    ),
    "hopper-medium-replay-v2": Expected(
        2041, 402_000, 467.3020324707, 511.025604248, -1.4400691986, 3192.9250488281
    ),
    "walker2d-medium-v2": Expected(
        1190, 999_995, 2852.0883789063, 1095.443359375, -6.6056718826, 4226.9399414063
    ),
    "walker2d-medium-replay-v2": Expected(
        1093, 302_000, 682.7012939453, 895.9555664063, -50.1968345642, 4132.0004882813
    ),
    "ant-medium-v2": Expected(1202),
    "ant-medium-replay-v2": Expected(485),
}


def set_name(dataset: Dataset) -> str:
    """D4RL's name of the set, which a part of it does not carry.

    Raises:
        ConfigError: if D4RL has no such set.
    """
    name = str(own_name(vars(dataset)))
    if name not in SETS:
        raise ConfigError([f"dataset={name}: not a D4RL set. Choose one of: {', '.join(SETS)}."])
    return name


def file_path(name: str, data_directory: Path) -> Path:
    """Returns the path of D4RL's set of this name, whether it is there or not."""
    return data_directory / "d4rl" / file_name(name)


def file_name(name: str) -> str:
    """The name of a set's file, which has underscores where the set's has dashes."""
    return name.removesuffix("-v2").replace("-", "_") + "-v2.hdf5"


def fetch(sets: Sequence[Dataset], paths: Paths) -> None:
    """Downloads D4RL's own files that are not there yet, and checks those that are."""
    for dataset in sets:
        if dataset.source != "d4rl":
            raise ConfigError(
                [f"{dataset.name}: only D4RL's own sets, hopper-medium-v2 for one, are fetched."]
            )
    for part in dict.fromkeys(part for dataset in sets for part in mix.stored(dataset)):
        print(f"{part.name}  {obtain(part, paths.data, paths.mirrors)}")


def obtain(dataset: Dataset, data_directory: Path, mirrors: str | None = None) -> Path:
    """The set's file, downloaded if it is not there, and proven to be D4RL's own by size and SHA-256.

    Args:
        dataset: one of D4RL's.
        data_directory: the file is, or goes, into its folder `d4rl`.
        mirrors: base URLs, separated by spaces, that are tried before `SOURCES`.

    Raises:
        ConfigError: saying what to do if the file cannot be downloaded or is another one.
    """
    name = set_name(dataset)
    path, published = file_path(name, data_directory), SETS[name]
    if not path.is_file():
        bases = [*(mirrors or "").split(), *SOURCES]
        urls = [f"{base.rstrip('/')}/{path.name}" for base in bases]
        download(urls, path, published.bytes, published.sha256)
    way_out = f"Delete it to download it again; for a file of your own, use dataset=file dataset.path={path}."
    if (size := path.stat().st_size) != published.bytes:
        raise ConfigError([f"{path}: {size} bytes, but D4RL's {name} has {published.bytes}. {way_out}"])
    if (actual := sha256(path)) != published.sha256:
        raise ConfigError([f"{path}: SHA-256 {actual}, but D4RL's {name} has {published.sha256}. {way_out}"])
    return path
