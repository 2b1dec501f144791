#!/bin/sh
# Stands in for mergelab-tensor: what it makes depends on the job and on the files that the job names, and on nothing else.
# With TENSOR_ERROR, an event, it gives up with that; TENSOR_LAYERS is what it reports of a merge's layers, and TENSOR_DIFFERENCE
# how two models differ that are not the same.
set -eu
out=$(sed -n 's/^  "out": "\(.*\)",$/\1/p' "$1")
events=$(sed -n 's/^  "events": "\(.*\)",$/\1/p' "$1")
# What of the job's parameters shows in the bytes.
job=$(grep -A 2 -e '"alpha"' -e '"max_length"' "$1" || true)
echo "tensor stage"
if [ -n "${TENSOR_ERROR:-}" ]; then
    echo "$TENSOR_ERROR" >> "$events"
    exit 1
fi
echo '{"event":"progress","done":1,"total":1,"unit":"layers"}' >> "$events"
echo '{"event":"facts","facts":{"device":"cpu","peak_memory":4096}}' >> "$events"
if grep -q '^    "merge"' "$1"; then
    tokenizer=$(sed -n 's/^    *"tokenizer": "\(\/.*\)",$/\1/p' "$1")
    cp "$tokenizer/config.json" "$tokenizer/tokenizer.json" "$out"
    {
        echo "$job"
        sed -n 's/^ *"path": "\(.*\)",$/\1/p' "$1" | while read -r model; do cat "$model/model.safetensors"; done
        sed -n 's/^ *"grams": "\(.*\)",$/\1/p' "$1" | while read -r grams; do cat "$grams/grams.safetensors"; done
    } > "$out/model.safetensors"
    date > "$out/README.md"
    if [ -n "${TENSOR_LAYERS:-}" ]; then cp "$TENSOR_LAYERS" "$out/layers.json"; fi
elif grep -q '^    "diff"' "$1"; then
    set -- $(sed -n 's/^ *"path": "\(.*\)"$/\1/p' "$1")
    if cmp -s "$1/model.safetensors" "$2/model.safetensors"; then
        echo '{"format":1,"tensors":[],"only":[[],[]],"tied":[false,false]}'
    else
        cat "$TENSOR_DIFFERENCE"
    fi > "$out/diff.json"
elif grep -q '^    "apply-lora"' "$1"; then
    base=$(sed -n 's/^ *"base": "\(.*\)",$/\1/p' "$1")
    adapter=$(sed -n 's/^ *"adapter": "\(.*\)"$/\1/p' "$1")
    cp "$base/config.json" "$base/tokenizer.json" "$out"
    cat "$base/model.safetensors" "$adapter"/adapter_model.* > "$out/model.safetensors"
elif grep -q '^    "extract-lora"' "$1"; then
    grep -e '"base_name"' -e '"rank"' -e '"energy"' -e '"whole"' "$1" > "$out/adapter_config.json"
    model=$(sed -n 's/^ *"model": "\(.*\)",$/\1/p' "$1")
    base=$(sed -n 's/^ *"base": "\(.*\)",$/\1/p' "$1")
    cat "$model/model.safetensors" "$base/model.safetensors" > "$out/adapter_model.safetensors"
    {
        echo '{"format":1,"relative_error":0.25,"whole":[],"layers":['
        echo '{"module":"layers.0.up_proj","shape":[8,6],"rank":2,"relative_error":0.25},'
        echo '{"module":"layers.1.up_proj","shape":[8,6],"rank":1,"relative_error":2.5e-7}],'
        echo '"left_out":[{"tensor":"norm.weight","relative_difference":0.125},{"tensor":"lm_head.weight","relative_difference":null}]}'
    } > "$out/layers.json"
elif grep -q '^    "loss"' "$1"; then
    {
        echo '[{"metric":"bits_per_byte","filter":"none","value":1.5,"stderr":0.25,"n_samples":1,"higher_is_better":false}'
        sed -n 's/^ *"name": "\(.*\)",$/\1/p' "$1" | while read -r source; do
            echo ",{\"metric\":\"kl/$source\",\"filter\":\"none\",\"value\":0.125,\"n_samples\":1,\"higher_is_better\":false}"
        done
        echo ']'
    } > "$out/metrics.json"
elif grep -q '^    "add-grams"' "$1"; then
    sed -n 's/^ *"path": "\(.*\)"$/\1/p' "$1" | while read -r part; do cat "$part"/[!R]*; done > "$out/grams.safetensors"
elif grep -q '^    "import-grams"' "$1"; then
    pickle=$(sed -n 's/^ *"pickle": "\(.*\)"$/\1/p' "$1")
    directory=$(sed -n 's/^ *"directory": "\(.*\)"$/\1/p' "$1")
    if [ -n "$pickle" ]; then cat "$pickle"; else cat "$directory"/*.safetensors; fi > "$out/grams.safetensors"
    echo '{"format":1,"modules":{"a.b":{"file":"grams.safetensors","tensor":"a.b","n":7,"width":1,"tile":1}}}' > "$out/index.json"
elif grep -q '^    "export-grams"' "$1"; then
    cp "$(sed -n 's/^ *"grams": "\(.*\)"$/\1/p' "$1")/grams.safetensors" "$out"
    echo '{"format":1,"matrices":{"a.b":{"file":"grams.safetensors","tensor":"a.b","n":7,"width":1}}}' > "$out/index.json"
else
    model=$(sed -n 's/^ *"model": "\(.*\)",$/\1/p' "$1")
    data=$(sed -n 's/^ *"data": "\(.*\)",$/\1/p' "$1")
    first=$(sed -n 's/^ *"first": \(.*\),$/\1/p' "$1")
    count=$(sed -n 's/^ *"count": \(.*\)$/\1/p' "$1")
    {
        echo "$job"
        cat "$model/model.safetensors"
        if [ -n "$first" ]; then tail -n "+$((first + 1))" "$data" | head -n "$count"; else cat "$data"; fi
    } > "$out/grams.safetensors"
fi
