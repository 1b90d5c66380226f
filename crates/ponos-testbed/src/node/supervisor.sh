# Owns one node's processes. Its standard input is a pipe from the test process and closes when that ends, however it
# ends; then the processes are killed by their ids and the directory goes. Each line is an order, answered by one line.
# Arguments: the directory; the program that starts the node; the program that starts epmd, or nothing.
directory=$1 start=$2 epmd=$3
vm= epmd_pid=
trap : PIPE INT TERM HUP

kill_vm() {
  if [ -n "$vm" ]; then
    kill -KILL "$vm" 2>/dev/null
    wait "$vm" 2>/dev/null
    vm=
  fi
}

if [ -n "$epmd" ]; then
  sh "$epmd" </dev/null >>"$directory/epmd.out" 2>&1 &
  epmd_pid=$!
fi
while read -r order; do
  case $order in
    start)
      if [ -z "$vm" ]; then
        sh "$start" </dev/null >>"$directory/server.out" 2>&1 &
        vm=$!
      fi
      ;;
    kill) kill_vm ;;
    terminate) kill -TERM "$vm" ;;
    freeze) kill -STOP "$vm" ;;
    thaw) kill -CONT "$vm" ;;
  esac
  echo "${vm:-0}" || break
done
kill_vm
if [ -n "$epmd_pid" ]; then
  kill -KILL "$epmd_pid" 2>/dev/null
  wait "$epmd_pid" 2>/dev/null
fi
rm -rf "$directory"
