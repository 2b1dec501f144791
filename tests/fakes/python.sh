#!/bin/sh
# Stands in for Python with lm_eval: a score is a checksum of the model's weights and the task's name. Called as
# `python -u driver.py job.json`. With DIE_AFTER=N it dies after N items, with KILL_AFTER=N by SIGKILL, and with HANG_AFTER=N it
# says nothing more. It then has an engine, a process with a session of its own whose parent is gone; `engine` and
# `driver` in its working directory hold both ids. Files under MADE/MODEL/TASK/ come with the item.
set -eu
job=$3
out=$(sed -n 's/^  "out": "\(.*\)",$/\1/p' "$job")
events=$(sed -n 's/^  "events": "\(.*\)",$/\1/p' "$job")
echo "driver $$" >> "${DRIVER_LOG:-/dev/null}"
sed -n -e 's/^ *"path": "\(.*\)",$/path \1/p' -e 's/^ *"item": \([0-9]*\),$/item \1/p' -e 's/^ *"task": "\(.*\)",$/task \1/p' "$job" |
{
    done=0
    while read -r word value; do
        case $word in
            path) model=$value ;;
            item) item=$value ;;
            task)
                if [ "$done" = "${DIE_AFTER:-none}" ]; then
                    echo "Traceback: out of everything"
                    exit 3
                fi
                if [ "$done" = "${HANG_AFTER:-none}" ] || [ "$done" = "${KILL_AFTER:-none}" ]; then
                    sh -c 'setsid sh -c "echo \$\$ > engine; exec sleep 1000" &'
                    until test -s engine; do sleep 0.01; done
                    echo "an engine runs" >&2
                    echo $$ > driver
                    if [ "$done" = "${KILL_AFTER:-none}" ]; then kill -9 $$; fi
                    exec sleep 1000
                fi
                mkdir "$out/$item"
                sum=$({ cat "$model/model.safetensors"; echo "$value"; } | cksum | cut -c 1-4)
                echo "[{\"metric\":\"exact_match\",\"filter\":\"none\",\"value\":0.$sum,\"stderr\":0.01,\"n_samples\":10,\"n_shot\":0}]" > "$out/$item/metrics.json"
                if [ -d "${MADE:-}/${model##*/}/$value" ]; then
                    cp "$MADE/${model##*/}/$value/"* "$out/$item/"
                fi
                echo "{\"event\":\"item\",\"item\":$item}" >> "$events"
                done=$((done + 1))
                ;;
        esac
    done
}
