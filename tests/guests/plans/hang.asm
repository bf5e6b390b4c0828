; A guest that starts well and then stops for good: it says so on the first serial port and the debug console, switches
; interrupts off and halts.
; nasm -f bin hang.asm
%include "plans/boot.inc"

  mov si, text
  call say
.hang:
  cli
  hlt
  jmp .hang

text: db "about to hang", 13, 10, 0

%include "plans/boot_end.inc"
