"""The eight `-v2` sets of D4RL that the paper uses: their files, and proof that a file is D4RL's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from o2o.config import ConfigError, Dataset
from o2o.datasets.digest import sha256

BASE_URL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/"


class Returns(NamedTuple):
    """Undiscounted returns over the complete episodes of a set, as published."""

    mean: float
    std: float
    max: float
    min: float


@dataclass(frozen=True)
class Published:
    """One published file; `returns` is None for the ant sets, whose returns nobody published."""

    file: str
    bytes: int
    sha256: str
    episodes: int
    returns: Returns | None = None


SETS = {
    "hopper-medium-v2": Published(
        file="hopper_medium-v2.hdf5",
        bytes=152_756_557,
        sha256="5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0",
        episodes=2186,
        returns=Returns(1422.0561523438, 378.9537048340, 3222.3605957031, 315.8680114746),
    ),
    "hopper-medium-replay-v2": Published(
        file="hopper_medium_replay-v2.hdf5",
        bytes=75_854_457,
        sha256="e121c5f7c9857a307baa9edc6a2c3b48e85fedb9ac316ecddd0f48ca7ef4e39b",
        episodes=2041,
        returns=Returns(467.3020324707, 511.0256042480, 3192.9250488281, -1.4400691986),
    ),
    "halfcheetah-medium-v2": Published(
        file="halfcheetah_medium-v2.hdf5",
        bytes=237_727_262,
        sha256="41324e8487a9556d8cfa4538827f8937f4d63dae3030825ebc9f3a726ed08ca0",
        episodes=1000,
        returns=Returns(4770.3349609375, 355.7503967285, 5309.3793945313, -310.2341918945),
    ),
    "halfcheetah-medium-replay-v2": Published(
        file="halfcheetah_medium_replay-v2.hdf5",
        bytes=59_448_533,
        sha256="48d494a4770c11f48260736dec090b78bdca8375647ed4d24bfa5b6610c7f683",
        episodes=202,
        returns=Returns(3093.2856445313, 1680.6939697266, 4985.1416015625, -638.4852905273),
    ),
    "walker2d-medium-v2": Published(
        file="walker2d_medium-v2.hdf5",
        bytes=232_254_996,
        sha256="cf00f43add04c17fdfc2958dd581dea0851b2e5bedbe6fda073758a8f841aeda",
        episodes=1190,
        returns=Returns(2852.0883789063, 1095.4433593750, 4226.9399414063, -6.6056718826),
    ),
    "walker2d-medium-replay-v2": Published(
        file="walker2d_medium_replay-v2.hdf5",
        bytes=86_323_963,
        sha256="e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db",
        episodes=1093,
        returns=Returns(682.7012939453, 895.9555664063, 4132.0004882813, -50.1968345642),
    ),
    "ant-medium-v2": Published(
        file="ant_medium-v2.hdf5",
        bytes=376_239_825,
        sha256="461c03b9f70f40d66b47608a92965e4ef3642bd9cdb1320d10acc92754167137",
        episodes=1202,
    ),
    "ant-medium-replay-v2": Published(
        file="ant_medium_replay-v2.hdf5",
        bytes=136_482_252,
        sha256="844c4e5743ef51091f2106a3570b257fb149032c4743f8a5f02f40adc3b42a46",
        episodes=485,
    ),
}


def file_path(dataset: Dataset, data_directory: Path) -> Path:
    """Where the set's file belongs, whether it is there or not.

    Raises:
        ConfigError: if the name is not one of the eight.
    """
    if dataset.name not in SETS:
        raise ConfigError([f"dataset.name={dataset.name}: not a D4RL set. Choose one of: {', '.join(SETS)}."])
    return data_directory / "d4rl" / SETS[dataset.name].file


def locate(dataset: Dataset, data_directory: Path) -> Path:
    """The set's file, proven to be D4RL's own by size and SHA-256.

    Raises:
        ConfigError: saying what to do if the file is missing or is another one.
    """
    path = file_path(dataset, data_directory)
    published = SETS[dataset.name]
    if not path.is_file():
        raise ConfigError(
            [
                f"dataset={dataset.name}: {path} is missing. Download {BASE_URL}{published.file} "
                f"({published.bytes / 1e6:.0f} MB) and put it there, or name another data directory with "
                "O2O_DATA. A set made by this project, dataset=regen-hopper-medium for one, needs no download."
            ]
        )
    way_out = (
        f"Download {BASE_URL}{published.file} again; "
        f"for a file of your own, use dataset=file dataset.path={path}."
    )
    if (size := path.stat().st_size) != published.bytes:
        raise ConfigError(
            [f"{path}: {size} bytes, but D4RL's {dataset.name} has {published.bytes}. {way_out}"]
        )
    if (actual := sha256(path)) != published.sha256:
        raise ConfigError(
            [f"{path}: SHA-256 {actual}, but D4RL's {dataset.name} has {published.sha256}. {way_out}"]
        )
    return path
