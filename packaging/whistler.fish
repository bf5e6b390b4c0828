# Completion for fish: the program itself says what may come next; where it says nothing, files.
function __whistler_words
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -l found ($words[1] complete $words[2..-1] "$word" 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path "$word"
    end
end
complete -c whistler -f -a '(__whistler_words)'
