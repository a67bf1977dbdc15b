#!/bin/sh
# From a fresh clone to a trained model: installs the packages, builds, draws the synthetic activities, evaluates the shipped tiny model, trains it
# with GRPO on 4 ranks for about 3 minutes on 2 cores, evaluates again. A second run skips what is there; RUN_DIR names another run's folder.
set -eu
cd "$(dirname "$0")/.."
. jobs/mpi-env.sh
run=${RUN_DIR:-runs/quickstart}
say() { printf '\n== %s\n' "$1"; }

say "packages"
jobs/install.sh
say "build"
[ -f build/build.ninja ] || meson setup build >build.log 2>&1 || { cat build.log; exit 1; }
rm -f build.log
ninja -C build favor
say "data: synthetic activities in data/synth"
build/favor synth data/synth

# evaluation writes into the run's folder, training makes it
mkdir -p "$run"
if [ ! -f "$run/eval-before.json" ]; then
	say "before: models/har-tiny on held-out images"
	build/favor eval configs/quickstart.yaml run.dir="$run" --name before
fi
say "GRPO on 4 ranks"
mpirun -n 4 build/favor train configs/quickstart.yaml run.dir="$run" --resume auto
last=$(ls "$run"/checkpoints/step-*.h5 | sort | tail -n 1)
say "after: $last on held-out images"
build/favor eval configs/quickstart.yaml run.dir="$run" model.path="$last" --name after
build/favor report "$run"

cat <<END

== done; where to look
  $run/report.html        curves, confusion matrices, groups of responses with rewards and advantages
  $run/metrics.jsonl      one line a step (docs/METRICS.md)
  $run/samples.jsonl      responses with their rewards
  $run/config.yaml        the effective configuration
  build/favor inspect $last
  build/favor generate --model $last --system none --image data/synth/images/test/000001.jpg --prompt "..."
END
