#compdef whistler
# Completion for zsh: the program itself says what may come next; where it says nothing, files.
local -a found
found=("${(@f)$("${(Q)words[1]}" complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
if [[ -n $found[1] ]]; then
    compadd -a found
else
    _files
fi
