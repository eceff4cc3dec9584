"""The algorithms, by the name that configs use. A new one is a file, a row here, and a YAML file with its values."""

from o2o.algorithms.awac import AWAC
from o2o.algorithms.bc import BC
from o2o.algorithms.cal_ql import CalQL
from o2o.algorithms.cql import CQL
from o2o.algorithms.frozen import Frozen
from o2o.algorithms.iql import IQL
from o2o.algorithms.sac import SAC
from o2o.algorithms.td3 import TD3
from o2o.algorithms.td3_bc import TD3BC
from o2o.algorithms.td3_c import TD3C

ALGORITHMS = {
    "td3": TD3,
    "td3_bc": TD3BC,
    "td3_c": TD3C,
    "sac": SAC,
    "frozen": Frozen,
    "bc": BC,
    "iql": IQL,
    "awac": AWAC,
    "cql": CQL,
    "cal_ql": CalQL,
}
