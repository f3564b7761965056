
# Names of workers, listeners and signals, from the running daemon or the configuration.
complete -c listend -f -n "listend __names -- (commandline -opc)[2..] 2>/dev/null | string length -q" -a "(listend __names -- (commandline -opc)[2..] 2>/dev/null)"
complete -c listend -f -n "__fish_seen_subcommand_from completions" -a "bash zsh fish"
