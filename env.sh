# shellcheck shell=bash
# Set the project up and enter it: `source env.sh`, in bash, from any directory.
#
# Makes .venv once (utils/make_venv.py), activates it, and exports AIFBENCH_HOME and the site's settings.
# A setting comes from the environment, else from .env, else from the site profile in utils/sites/.
# AIFBENCH_FROM_FILES remembers what came from files, so that an edited .env counts the next time.

if [ -z "${BASH_VERSION:-}" ]; then
  echo "env.sh: needs bash; type: bash, and then: source env.sh" >&2
  return 1
fi
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  echo "env.sh: must be sourced to change your shell; type: source env.sh" >&2
  exit 2
fi

_aifbench_say() { printf 'env.sh: %s\n' "$*" >&2; }

# Print the real path of a Python >= 3.11: an environment must not hang on a link that an upgrade turns.
_aifbench_find_python() {
  local probe='import os, sys
print("%d.%d.%d %s" % (sys.version_info[:3] + (os.path.realpath(getattr(sys, "_base_executable", sys.executable)),)))'
  local name version path found=""
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    read -r version path < <("$name" -E -c "$probe" 2>/dev/null) || continue
    case $version in
      3.1[1-9].* | 3.[2-9][0-9].*) printf '%s\n' "$path" && return ;;
      *) found+="${found:+, }$name $version" ;;
    esac
  done
  _aifbench_say "needs Python 3.11 or newer; on PATH: ${found:-none};" \
    "install one (as root: apt install python3; without: conda, pyenv or uv)," \
    "or load your cluster's module (MeluXina: source load_modules.sh)"
  return 1
}

# Take the settings of a file's NAME=value lines, never running it; sets the caller's `needs` from SITE_NEEDS.
_aifbench_read() {
  local file=$1 line key value number=0
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%$'\r'}
    line=${line#"${line%%[![:blank:]]*}"}
    line=${line#export }
    [[ -z $line || $line == '#'* ]] && continue
    key=${line%%=*} value=${line#*=}
    case $key in
      AIFBENCH_SITE | AIFBENCH_ACCOUNT | AIFBENCH_PARTITION | AIFBENCH_QOS | AIFBENCH_RESERVATION | AIFBENCH_TIME | \
        AIFBENCH_SCHEDULER | AIFBENCH_RESULTS | AIFBENCH_SCRATCH | AIFBENCH_IMAGES | AIFBENCH_LOGIN | \
        AIFBENCH_EVENTS_LEVEL | AIFBENCH_EVENTS_KEEP) ;;
      SITE_NEEDS) needs=$value && continue ;;
      SITE_HOSTS | SITE_DIRECTORY) continue ;;
      *)
        _aifbench_say "$file line $number: '$line' is not one of the settings in .env.example, as NAME=value"
        return 1
        ;;
    esac
    case $value in
      \"*\"*) value=${value#\"} value=${value%%\"*} ;;
      \'*\'*) value=${value#\'} value=${value%%\'*} ;;
      *) value=${value%%[[:blank:]]#*} value=${value%"${value##*[![:blank:]]}"} ;;
    esac
    if [[ $value == *[\$\`]* ]]; then
      _aifbench_say "$file line $number: $key is not expanded by a shell: write it out ({user} and {account} are replaced)"
      return 1
    fi
    _aifbench_set "$key" "$value"
  done <"$file"
}

_aifbench_set() {
  local key=$1 value=$2
  [[ -n ${!key+set} ]] && return
  [[ $value == *'{account}'* && -z ${AIFBENCH_ACCOUNT-} ]] && return
  value=${value//'{account}'/${AIFBENCH_ACCOUNT-}}
  value=${value//'{user}'/${USER:-$(id -un)}}
  [[ $value == \~/* ]] && value=$HOME/${value:2}
  export "$key=$value"
  AIFBENCH_FROM_FILES+="$key=$value"$'\n'
}

_aifbench_forget_settings() {
  local line key
  while IFS= read -r line; do
    key=${line%%=*}
    [[ -n $key && ${!key-} == "${line#*=}" ]] && unset "$key"
  done <<<"${AIFBENCH_FROM_FILES-}"
  export AIFBENCH_FROM_FILES=""
}

# Whether a site profile is about this machine: its SITE_HOSTS name it and its SITE_DIRECTORY exists.
_aifbench_is_here() {
  local key value pattern patterns=() named=1 exists=1
  while IFS='=' read -r key value; do
    case $key in
      SITE_HOSTS)
        IFS=' ' read -ra patterns <<<"$value"
        for pattern in "${patterns[@]}"; do
          # shellcheck disable=SC2053  # the right side is a pattern
          [[ ${HOSTNAME-} == $pattern ]] && named=0
        done
        ;;
      SITE_DIRECTORY) [[ -d $value ]] && exists=0 ;;
    esac
  done <"$1"
  return $((named | exists))
}

# Export the settings; sets the caller's `site` and `missing`.
_aifbench_load_settings() {
  local sites=$1/utils/sites profile needs=""
  _aifbench_forget_settings
  if [[ -e $1/.env ]]; then
    _aifbench_read "$1/.env" || return 1
  fi
  site=${AIFBENCH_SITE:-none}
  if [[ -z ${AIFBENCH_SITE-} ]]; then
    for profile in "$sites"/*.env; do
      _aifbench_is_here "$profile" && site=${profile##*/} && site=${site%.env}
    done
  fi
  [[ $site == none ]] && return
  if [[ ! -e $sites/$site.env ]]; then
    _aifbench_say "AIFBENCH_SITE is '$site', and there is no $sites/$site.env; name a file of that folder, or none"
    return 1
  fi
  _aifbench_read "$sites/$site.env" || return 1
  [[ -n $needs && -z ${!needs-} ]] && missing=$needs
  return 0
}

_aifbench_main() {
  local IFS=$' \t\n' folder=. project stamp python site="" missing="" started=$SECONDS did="using .venv"
  [[ ${BASH_SOURCE[0]} == */* ]] && folder=${BASH_SOURCE[0]%/*}
  project=$(CDPATH="" builtin cd -- "${folder:-/}" && builtin pwd -P) || return 1
  stamp="$project
$(<"$project/requirements.txt")
$(<"$project/utils/constraints.txt")
$(<"$project/utils/make_venv.py")" || return 1
  if [[ ! -e $project/.venv/stamp || $(<"$project/.venv/stamp") != "$stamp" ]]; then
    python=$(_aifbench_find_python) || return 1
    "$python" -I "$project/utils/make_venv.py" "$project" "$stamp" || return 1
    did="installed .venv in $((SECONDS - started)) s"
  elif [[ ! -x $project/.venv/bin/python ]]; then
    # Not remade silently: on a cluster another kind of node may have that Python, and jobs using it.
    _aifbench_say "this machine lacks the Python that $project/.venv was made with;" \
      "if no other machine uses it: rm -rf '$project/.venv', then source env.sh"
    return 1
  fi
  _aifbench_load_settings "$project" || return 1
  export AIFBENCH_HOME=$project
  # shellcheck source=/dev/null
  source "$project/.venv/bin/activate" || return 1
  _aifbench_say "$did, site $site${missing:+; put $missing=... into $project/.env}; type: aifbench"
}

_aifbench_leave() {
  unset -f _aifbench_say _aifbench_find_python _aifbench_read _aifbench_set _aifbench_forget_settings \
    _aifbench_is_here _aifbench_load_settings _aifbench_main _aifbench_leave
  return "$1"
}

if _aifbench_main; then _aifbench_leave 0; else _aifbench_leave 1; fi
