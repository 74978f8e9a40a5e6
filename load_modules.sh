# shellcheck shell=bash
# Load what MeluXina's compute nodes offer as modules: Apptainer and a new enough Python. `source load_modules.sh`,
# then `source env.sh`. Where there are no such modules (login nodes, laptops) it does nothing and says so.

if [ -z "${BASH_VERSION:-}" ]; then
  echo "load_modules.sh: needs bash; type: bash, and then: source load_modules.sh" >&2
  return 1
fi

_aifbench_load_modules() {
  local release=2024.1 lmod=/usr/share/lmod/lmod/init/bash stack
  local -  # Lmod is not written for set -eu; the caller's options come back on return
  set +eu
  # A batch job's shell does not run the login scripts that define `module`.
  # shellcheck source=/dev/null
  if ! type module &>/dev/null && [[ -r $lmod ]]; then source "$lmod"; fi
  if ! type module &>/dev/null; then
    echo "load_modules.sh: no module command on ${HOSTNAME:-this machine}; nothing loaded" >&2
    return 0
  fi
  stack=/apps/USE/easybuild/release/$release/modules/all
  if [[ -d $stack ]]; then module use "$stack"; fi
  if ! module is-avail "env/release/$release" &>/dev/null; then
    echo "load_modules.sh: no module env/release/$release on ${HOSTNAME:-this machine}; nothing loaded" >&2
    return 0
  fi
  if ! module load "env/release/$release" Apptainer Python; then
    echo "load_modules.sh: loading env/release/$release Apptainer Python failed; see: module spider Apptainer" >&2
    return 1
  fi
  echo "load_modules.sh: loaded env/release/$release, Apptainer and Python; next: source env.sh" >&2
}

if _aifbench_load_modules; then
  unset -f _aifbench_load_modules
else
  unset -f _aifbench_load_modules
  return 1
fi
