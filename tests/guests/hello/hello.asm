; The smallest guest: a boot sector that says HELLO everywhere it can be heard and leaves.
;   debug console (port 0x402 and 0xE9), screen (INT 10h), first serial port, then the debug exit port 0xF4 with 0x2A:
;   the exit status is (0x2A << 1) | 1 = 85. Where nothing listens at the exit port it halts for good.
; nasm -f bin hello.asm
bits 16
org 0x7c00

  jmp 0:start

start:
  xor ax, ax
  mov ds, ax
  mov ss, ax
  mov sp, 0x7c00
  sti
  cld
  mov si, text
.next:
  lodsb
  test al, al
  jz .done
  mov dx, 0x402
  out dx, al
  out 0xe9, al
  mov dx, 0x3f8
  out dx, al
  mov ah, 0x0e
  mov bx, 7
  push si
  int 0x10
  pop si
  jmp .next
.done:
  mov al, 0x2a
  out 0xf4, al
.forever:
  hlt
  jmp .forever

text: db "HELLO", 13, 10, 0

  times 446 - ($ - $$) db 0
  ; One partition over the rest of the 1 MiB disk, so that the sector looks like what a BIOS expects.
  db 0x80, 0, 2, 0, 0xda, 2, 32, 2
  dd 1, 2047
  times 510 - ($ - $$) db 0
  dw 0xaa55
