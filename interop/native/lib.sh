# What both suites share; a script that sources this has set here and MOBULA.
: "${here:?}" "${MOBULA:?}"
caches=${XDG_CACHE_HOME:-$HOME/.cache}/mobula-interop
mkdir -p "$caches"
for port in 9000 9001; do
  if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "interop/native: port $port is taken, and the tests know no other" >&2; exit 1
  fi
done

work=$(mktemp -d)
left=("$work") # what goes at the end
finish() { # the cluster of a test that was stopped ends by itself, once nobody holds its standard input
  local pid
  [ ! -e "$work/pids" ] || while read -r pid; do
    for _ in $(seq 300); do
      [ "/proc/$pid/exe" -ef "$MOBULA" ] || continue 2
      sleep 0.1
    done
    kill -9 "$pid"
  done <"$work/pids"
  rm -rf "${left[@]}"
}
trap finish EXIT
mkdir "$work/bin"
cp "$here/mvn" "$work/bin/"
with_mvn() { # COMMAND...: with the stand-in, its clusters' files and its log in $work
  env -u HADOOP_CONF_DIR -u HADOOP_USER_NAME MOBULA="$MOBULA" TMPDIR="$work" PATH="$work/bin:$PATH" timeout 900 "$@"
}
show() { cat "$@" >&2; [ ! -e "$work/log" ] || cat "$work/log" >&2; }
