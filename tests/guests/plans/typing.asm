; A guest that reads keys the slow old way, through the BIOS and its buffer of 15 keys, and passes them on to the first
; serial port. Now and then it does not look for a while, as programs do.
; nasm -f bin typing.asm
%include "plans/boot.inc"

  mov si, text
  call say
.next:
  xor ah, ah
  int 0x16
  call put
  cmp al, 13
  jne .next
  mov al, 10
  call put
  inc byte [lines]
  test byte [lines], 31
  jnz .next
  mov ecx, 20
.away:                      ; about a second, in ticks of 55 ms
  hlt
  loop .away
  jmp .next

lines: db 0
text: db "type", 13, 10, 0

%include "plans/boot_end.inc"
