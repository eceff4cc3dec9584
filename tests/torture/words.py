"""Malformed command lines, environments and presets."""

from __future__ import annotations

from pathlib import Path

from torture.trial import Case

# Overrides, each with what the message must name.
OVERRIDES = [
    # numbers
    ("seed=-1", "seed=-1"),
    ("seed=abc", "seed=abc"),
    ("seed=1.5", "seed=1.5"),
    ("seed=null", "seed=null"),
    ("seed=true", "seed=true"),
    ("seed=2147483648", "seed=2147483648"),
    ("seed=99999999999999999999999999999999", "seed=9999"),
    ("seed=1e400", "seed="),
    ("seed=nan", "seed=nan"),
    ("seed=inf", "seed=inf"),
    ("seed=[1]", "seed=[1]"),
    ("seed={a:1}", "seed="),
    ("seed=", "seed="),
    ("seed='1'", "seed"),
    ("seed=0x10", "seed=0x10"),
    ("seed=１２", "seed"),
    ("seed=1_0_", "seed=1_0_"),
    ("seed=0,1,-2", "seed=-2"),
    ("batch_size=0", "batch_size=0"),
    ("batch_size=-256", "batch_size=-256"),
    ("batch_size=2.5", "batch_size=2.5"),
    ("batch_size=256a", "batch_size=256a"),
    ("batch_size=1e99", "batch_size="),
    ("batch_size=null", "batch_size=null"),
    ("batch_size=false", "batch_size=false"),
    ("discount=2", "discount=2"),
    ("discount=-0.1", "discount=-0.1"),
    ("discount=nan", "discount=nan"),
    ("discount='0.99'", "discount"),
    ("discount=0,9", "discount=9"),
    ("discount=0.99.0", "discount=0.99.0"),
    ("learning_rate=3e-4", "learning_rate"),
    ("learning_rate=null", "learning_rate"),
    ("learning_rate.policy=0", "learning_rate.policy=0"),
    ("learning_rate.policy=-inf", "learning_rate.policy"),
    ("learning_rate.critic=fast", "learning_rate.critic=fast"),
    ("learning_rate.actor=1e-4", "actor"),
    ("network=256", "network"),
    ("network.hidden_sizes=256", "network.hidden_sizes=256"),
    ("network.hidden_sizes=[0]", "network.hidden_sizes[0]=0"),
    ("network.hidden_sizes=[256,x]", "network.hidden_sizes[1]=x"),
    ("network.hidden_sizes=[[256]]", "network.hidden_sizes[0]"),
    ("network.hidden_sizes=[1e10]", "network.hidden_sizes[0]"),
    ("network.hidden_sizes={a:1}", "network.hidden_sizes"),
    ("pretrain=500", "pretrain"),
    ("pretrain.updates=-1", "pretrain.updates=-1"),
    ("pretrain.updates=0.5", "pretrain.updates=0.5"),
    ("pretrain.updates=1e12", "pretrain.updates"),
    ("pretrain.updates=500k", "pretrain.updates=500k"),
    ("finetune.env_steps=-1", "finetune.env_steps=-1"),
    ("finetune.env_steps=many", "finetune.env_steps=many"),
    ("finetune.reset_optimizers=yes", "finetune.reset_optimizers=yes"),
    ("finetune.reset_optimizers=1", "finetune.reset_optimizers=1"),
    ("finetune.reset_targets=null", "finetune.reset_targets=null"),
    ("replay_init.capacity=0", "replay_init.capacity=0"),
    ("replay_init.capacity=-1", "replay_init.capacity=-1"),
    ("replay_init.min_size=0", "replay_init.min_size=0"),
    ("replay_init.preload=maybe", "replay_init.preload=maybe"),
    ("offline_ratio.value=2", "offline_ratio.value=2"),
    ("offline_ratio.value=-0.5", "offline_ratio.value=-0.5"),
    ("offline_ratio.value=half", "offline_ratio.value=half"),
    ("offline_ratio.value=0.0001", "offline_ratio.value=0.0001"),
    ("evaluation.episodes=0", "evaluation.episodes=0"),
    ("evaluation.interval=-5", "evaluation.interval=-5"),
    ("evaluation.switch_episodes=ten", "evaluation.switch_episodes=ten"),
    ("evaluation.online_intervals=5", "evaluation.online_intervals=5"),
    ("evaluation.online_intervals=[5,1]", "evaluation.online_intervals[0]"),
    ("evaluation.online_intervals=[[5]]", "evaluation.online_intervals[0]"),
    ("evaluation.online_intervals=[[5,0]]", "evaluation.online_intervals[0][1]=0"),
    ("evaluation.online_intervals=[[10,1],[5,1]]", "evaluation.online_intervals"),
    ("records.interval=0", "records.interval=0"),
    ("checkpoint.interval_seconds=0", "checkpoint.interval_seconds=0"),
    ("checkpoint.interval_seconds=-3", "checkpoint.interval_seconds=-3"),
    ("checkpoint.interval_seconds=5min", "checkpoint.interval_seconds=5min"),
    ("tracker.mode=of", "tracker.mode=of"),
    ("tracker.project=", "tracker.project"),
    ("tracker.project=[a]", "tracker.project"),
    ("launch.dry_run=maybe", "launch.dry_run=maybe"),
    ("launch.redo=2", "launch.redo=2"),
    ("device.platform=cuda", "device.platform=cuda"),
    ("device=gpu", "device"),
    # the algorithms
    ("algorithm.target_step=0", "algorithm.target_step=0"),
    ("algorithm.target_step=1.5", "algorithm.target_step=1.5"),
    ("algorithm.policy_delay=0", "algorithm.policy_delay=0"),
    ("algorithm.policy_delay=1.5", "algorithm.policy_delay=1.5"),
    ("algorithm.exploration_noise=-1", "algorithm.exploration_noise=-1"),
    ("algorithm.target_noise=loud", "algorithm.target_noise=loud"),
    ("algorithm.action_gradient_clip=0", "algorithm.action_gradient_clip=0"),
    ("algorithm.dpg_reduce=summ", "algorithm.dpg_reduce=summ"),
    ("algorithm.name=td3bc", "algorithm.name=td3bc"),
    ("algorithm.name=null", "algorithm.name=null"),
    ("+algorithm.discount=0.9", "algorithm.discount"),
    ("+algorithm.constraint_epsilon=1e-5", "constraint_epsilon"),
    ("pretrain.algorithm.behavior_cloning_alpha=-2.5", "behavior_cloning_alpha=-2.5"),
    ("pretrain.algorithm.bc_normaliser=max", "bc_normaliser=max"),
    ("pretrain.algorithm=td3", "pretrain.algorithm"),
    ("conventions.dpg_reduce=product", "dpg_reduce=product"),
    # groups and their near words
    ("algorithm=td3bc", "Did you mean td3_bc?"),
    ("algorithm=TD3", "TD3"),
    ("algorithm=ppo", "ppo"),
    ("algorithm=null", "algorithm"),
    ("algorithm=[td3]", "algorithm"),
    ("algorithm@pretrain.algorithm=tdd3", "tdd3"),
    ("conventions=papper", "Did you mean paper?"),
    ("dataset=hopper-medum-v2", "Did you mean hopper-medium-v2?"),
    ("dataset=../config", "dataset"),
    ("dataset=/etc/passwd", "dataset"),
    ("replay_init=oflline", "Did you mean offline?"),
    ("offline_ratio=0.3", "offline_ratio"),
    ("tracker=wandbb", "Did you mean wandb?"),
    ("experiment=demoo", "Did you mean demo?"),
    ("experiment=demo,figure1", "experiment=demo,figure1"),
    ("experiment=glob(*)", "experiment"),
    ("experiment=[demo,figure1]", "experiment"),
    ("algorithm=glob(q*)", "q*"),
    # unknown keys
    ("algoritm=td3", "Did you mean algorithm?"),
    ("batchsize=3", "Did you mean batch_size?"),
    ("+batch_sise=3", "batch_sise"),
    ("++a.b.c=1", "a is not a key"),
    ("dataset.tasks=hopper", "Did you mean task?"),
    ("evaluation.intervall=5", "Did you mean interval?"),
    ("paths.run=x", "Did you mean runs?"),
    ("foo/bar=x", "foo"),
    ("algorithm@nowhere=td3", "nowhere"),
    ("hydra.nothing=1", "nothing"),
    ("~seed", "seed"),
    ("~finetune", "finetune"),
    ("~algorithm", "algorithm"),
    ("~dataset.task", "dataset.task"),
    ("~nothing", "nothing"),
    # the data
    ("dataset.task=hoper", "did you mean hopper?"),
    ("dataset.task=3", "dataset.task=3"),
    ("dataset.task=???", "dataset.task"),
    ("dataset.task=", "dataset.task"),
    ("dataset.rows=0", "dataset.rows=0"),
    ("dataset.rows=-5", "dataset.rows=-5"),
    ("dataset.rows=1e20", "dataset.rows"),
    ("dataset.seed=-1", "dataset.seed=-1"),
    ("dataset.source=web", "dataset.source=web"),
    ("dataset.name=../x", "dataset.name=../x"),
    ("dataset.name=a/b", "dataset.name=a/b"),
    ("dataset.name='a b'", "dataset.name=a b"),
    ("dataset.name=.hidden", "dataset.name=.hidden"),
    ("dataset.name=", "dataset.name"),
    ("dataset.quality=null", "dataset.quality"),
    ("dataset.reference_min=1", "dataset.reference_min"),
    ("dataset.reference_max=nan", "dataset.reference_max=nan"),
    # grammar and interpolation
    ("seed=range(3", "range(3"),
    ("seed=range(0)", "seed"),
    ("seed=range(0,3,0)", "range"),
    ("seed=range(0,1,0.1)", "seed"),
    ("seed=interval(0,1)", "interval(0,1)"),
    ("seed=choice()", "seed"),
    ("seed=[1", "seed=[1"),
    ("seed", "seed"),
    ("=3", "=3"),
    ("seed=${", "seed"),
    ("seed=${nope}", "nope"),
    ("seed=${seed}", "seed"),
    ("discount=${discount}", "discount"),
    ("discount=${learning_rate}", "discount"),
    ("batch_size=${oc.env:O2O_NOT_SET}", "O2O_NOT_SET"),
    ("hydra.searchpath=[file:///nowhere]", "nowhere"),
    ("batch_size=${nowhere:1}", "nowhere"),
    ("batch_size=${oc.decode:'['}", "batch_size"),
    ("paths.runs=${paths.data}${paths.runs}", "paths.runs"),
    ("paths.runs=???", "paths.runs"),
    ("paths.runs=", "paths.runs"),
    ("paths.runs=null", "paths.runs"),
    ("paths.data=[a]", "paths.data"),
    ("paths.runs=/dev/null/x", "paths.runs=/dev/null/x"),
    ('paths.data="~nobody-of-this-name/x"', "paths.data=~nobody-of-this-name/x: no home directory"),
    ('paths.runs="a\0b"', "paths.runs"),
    ("paths.runs=" + 300 * "long", "paths.runs"),
    ("paths.runs=/proc/self/fdinfo/x", "paths.runs"),
    ("seed=" + 5000 * "x", "seed=xxx"),
    ('tracker.project="a\x1b[2Jb"', "tracker.project"),
    ("network.hidden_sizes=[" + ",".join(["x"] * 300) + "]", "network.hidden_sizes[0]=x"),
    # Hydra's own
    ("hydra.mode=RUN", "hydra.mode"),
    ("hydra.mode=SWEEP", "SWEEP"),
    ("hydra/launcher=nope", "nope"),
    ("hydra/sweeper=nope", "nope"),
    ("hydra.sweeper.grids=5", "hydra.sweeper.grids"),
    ("hydra.sweeper.grids=[1]", "hydra.sweeper.grids"),
    ("hydra.sweeper.grids=[{seed:[]}]", "seed"),
    ("hydra.sweeper.grids=[{experiment:demo}]", "experiment"),
    ("hydra.sweeper.grids=[{hydra.mode:RUN}]", "hydra.mode"),
    ("hydra.launcher._target_=os.system", "os.system"),
    ("hydra.sweeper._target_=os.system", "os.system"),
]

ONLINE = "pretrain.updates=0 replay_init=empty dataset.reference_min=0 dataset.reference_max=1"

# Lines of several words: contradictions, and more than one mistake at once.
LINES = [
    ("nothing to do", "pretrain.updates=0 finetune.env_steps=0 replay_init=empty", "nothing to do"),
    ("a ratio without offline rows", "replay_init=empty offline_ratio=r50", "offline_ratio.value=0.5"),
    ("min above capacity", "replay_init.capacity=10", "replay_init.min_size=1000"),
    ("batch above min", "replay_init=empty batch_size=2000", "batch_size=2000"),
    ("too few steps", "replay_init=empty finetune.env_steps=10", "finetune.env_steps=10"),
    ("families", "algorithm=sac", "algorithm=sac"),
    ("families, the other way", "algorithm@pretrain.algorithm=sac", "sac"),
    ("a file of nobody", "dataset=file dataset.task=hopper dataset.path='~nobody-at-all/x'", "path=~nobody-at-all/x"),
    ("a file without path and task", "dataset=file", "dataset.path"),
    ("a file without task", "dataset=file dataset.path=x.hdf5", "dataset.task"),
    ("references upside down", "dataset.reference_min=5 dataset.reference_max=1", "dataset.reference_min=5"),
    ("a discrete task", f"{ONLINE} dataset.task=CartPole-v1", "CartPole-v1"),
    ("another's name", "dataset.task=walker2d", "dataset=walker2d-medium-v2"),
    ("a part under the whole's name", "dataset.rows=1000", "hopper-medium-v2-first-1000"),
    ("no such task", f"{ONLINE} dataset.task=Nope-v7", "Nope-v7"),
    ("no such version", f"{ONLINE} dataset.task=Ant-v99", "Ant-v99"),
    ("a task with code", f"{ONLINE} dataset.task=os:system", "os:system"),
    ("three mistakes", "discount=2 batch_size=0 seed=-1", "batch_size=0"),
    ("one cell of many", "discount=0.9,2 seed=range(3)", "in discount=2"),
    ("every cell of many", "discount=-1 seed=range(50) batch_size=16,32,64", "discount=-1"),
    ("no policy to make it", "dataset=regen-hopper-medium dataset.quality=expert", "dataset.quality=expert"),
    ("no rows to make", "dataset=regen-hopper-medium dataset.rows=null", "dataset.rows"),
    ("a false name", "dataset=regen-hopper-medium dataset.name=hopper-medium-v2", "regen-"),
    ("minari without id", "dataset.source=minari", "dataset.id"),
    ("not a preset key", "experiment=table1 finetune.steps=3", "Did you mean env_steps?"),
    ("an unknown option", "--sede=3", "--sede"),
    ("no such configuration", "--config-name=nope", "nope"),
    ("a pickled job", "--experimental-rerun=job.pickle", "--experimental-rerun"),
    ("no such directory of presets", "--config-dir=/nowhere", "/nowhere"),
]  # fmt: skip

BASE = "dataset=hopper-medium-v2"
FAST_MATH = "--xla_cpu_enable_fast_math=true"


def _preset(text: str) -> object:
    def prepare(directory: Path) -> None:
        folder = directory / "presets" / "experiment"
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_text(text, encoding="utf-8")

    return prepare


PRESETS = [
    ("not YAML", "# @package _global_\nseed: [1\n", "mine"),
    ("a list", "- 1\n- 2\n", "experiment"),
    ("python tags", "# @package _global_\nseed: !!python/object/apply:os.system ['touch executed']\n", "mine"),
    ("an unknown key", "# @package _global_\nbatch_sise: 3\n", "batch_sise"),
    ("a wrong type", "# @package _global_\nbatch_size: many\n", "batch_size"),
    ("a target", "# @package _global_\nfinetune:\n  _target_: os.system\n  command: touch executed\n", "_target_"),
    ("no such default", "# @package _global_\ndefaults:\n  - override /algorithm: nope\n", "nope"),
    ("itself", "# @package _global_\ndefaults:\n  - mine\n", "mine"),
    ("grids that are no list", "# @package _global_\nhydra:\n  sweeper:\n    grids: 7\n", "hydra.sweeper.grids"),
    ("a grid of an unknown key", "# @package _global_\nhydra:\n  sweeper:\n    grids:\n      - sede: [1]\n", "sede"),
    ("a grid of bad values", "# @package _global_\nhydra:\n  sweeper:\n    grids:\n      - seed: range(\n", "range("),
    ("tabs", "# @package _global_\nseed:\t3\n\tbatch_size: 3\n", "mine"),
]  # fmt: skip


def cases() -> list[Case]:
    """All of them, for `launch`."""
    # Hydra makes its directory before this project is asked.
    made = {"hydra.mode=RUN": ("runs", "runs/.sweeps")}
    single = [
        Case(ascii(word[:60])[1:-1], (BASE, word), said, aside=made.get(word, ())) for word, said in OVERRIDES
    ]
    lines = [Case(name, (BASE, *line.split()), said) for name, line, said in LINES]
    presets = [
        Case(f"a preset: {name}", ("--config-dir={}/presets", BASE, "experiment=mine"), said, _preset(text))
        for name, text, said in PRESETS
    ]
    return [*single, *lines, *presets, *_environments()]


def _environments() -> list[Case]:
    def file(directory: Path) -> None:
        (directory / "file").write_text("")

    def loop(directory: Path) -> None:
        (directory / "loop").symlink_to("loop")

    def dangling(directory: Path) -> None:
        (directory / "dangling").symlink_to("/dev/null/nowhere")

    regenerated = ("dataset=regen-hopper-medium",)
    return [
        Case("O2O_RUNS is empty", (BASE,), "paths.runs", environment={"O2O_RUNS": ""}),
        Case("O2O_DATA is empty", (BASE,), "paths.data", environment={"O2O_DATA": ""}),
        Case("fast math", (BASE,), FAST_MATH, environment={"XLA_FLAGS": f"--xla_dump_to=x {FAST_MATH}"}),
        Case("factors rounded", (BASE,), "NVIDIA_TF32_OVERRIDE=1", environment={"NVIDIA_TF32_OVERRIDE": "1"}),
        Case("runs go to a file", (BASE, "paths.runs={}/file"), "file", file),
        Case("runs go below a file", (BASE, "paths.runs={}/file/deep"), "file", file),
        Case("runs go to a loop of links", (BASE, "paths.runs={}/loop"), "loop", loop),
        Case("runs go below a loop of links", (BASE, "paths.runs={}/loop/deep"), "loop", loop),
        Case("runs go to a dangling link", (BASE, "paths.runs={}/dangling/deep"), "dangling", dangling),
        Case("data go to a file", (*regenerated, "paths.data={}/file"), "file", file),
        Case("data go to a loop of links", (*regenerated, "paths.data={}/loop"), "loop", loop),
    ]
