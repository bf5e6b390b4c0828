# Completion for bash: the program itself says what may come next; where it says nothing, files.
_whistler() {
    mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _whistler whistler
