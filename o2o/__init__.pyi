from analysis.data.frames import load_runs as load_runs
from analysis.figures import plot as plot
from o2o.runs.trained.policy import load_policy as load_policy

__version__: str
