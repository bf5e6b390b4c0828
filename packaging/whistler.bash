# Completion for bash: commands, options and files, all taken from the program's own --help.
_whistler() {
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} help
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        help=$("${COMP_WORDS[0]}" --help 2>/dev/null | sed -n '/^Subcommands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$help --help --version" -- "$word")
        return
    fi
    # Commands of a command, as `ctl MACHINE status` and `img create` have.
    local place=2
    [[ $command == ctl ]] && place=3
    if ((COMP_CWORD == place)) && [[ $word != -* && ($command == ctl || $command == img) ]]; then
        help=$("${COMP_WORDS[0]}" "$command" --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p')
        mapfile -t COMPREPLY < <(compgen -W "$help" -- "$word")
        return
    fi
    if [[ $word == -* ]]; then
        help=$("${COMP_WORDS[0]}" "$command" --help 2>/dev/null | grep -oE -- '--?[a-zA-Z][a-zA-Z0-9-]*' | sort -u)
        mapfile -t COMPREPLY < <(compgen -W "$help" -- "$word")
        return
    fi
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
}
complete -F _whistler whistler
