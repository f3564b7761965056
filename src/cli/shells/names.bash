
# Names of workers, listeners and signals, from the running daemon or the configuration.
_listend_with_names() {
    local word line
    _listend "$@"
    # What stands for a name in the usage is none.
    local found=()
    for word in "${COMPREPLY[@]}"; do
        [[ $word == [\<\[]* ]] || found+=("$word")
    done
    if [[ ${COMP_WORDS[COMP_CWORD]} != -* ]]; then
        while IFS= read -r line; do
            [[ $line == "${COMP_WORDS[COMP_CWORD]}"* ]] && found+=("$line")
        done < <("${COMP_WORDS[0]}" __names -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)
    fi
    COMPREPLY=("${found[@]}")
}

complete -F _listend_with_names -o bashdefault -o default listend
