
# Names of workers, listeners and signals, from the running daemon or the configuration.
_listend_names() {
    local -a found
    found=(${(f)"$(${listend_words[1]} __names -- "${(@)listend_words[2,-1]}" 2>/dev/null)"})
    compadd -a found
}
