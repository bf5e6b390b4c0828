; A multiboot (version 1) kernel for direct boot without firmware: checks what the loader promised, says so on the debug
; console, port 0xE9 and the first serial port, and leaves by the debug exit port:
;   0x10 -> status 33: all as the specification says;  0x11 -> 35: wrong magic in EAX;
;   0x12 -> 37: no memory sizes;  0x13 -> 39: no command line;  0x14 -> 41: A20 off or not in protected mode.
; nasm -f elf32 multiboot.asm && ld -m elf_i386 -Ttext 0x100000
bits 32
global _start

MAGIC equ 0x1badb002
FLAGS equ 0x00000003 ; page-aligned modules, memory information

section .text
align 4
  dd MAGIC
  dd FLAGS
  dd -(MAGIC + FLAGS)

_start:
  mov esp, stack_top
  mov ebp, eax
  mov esi, text
  call print
  cmp ebp, 0x2badb002
  mov al, 0x11
  jne leave_with
  test dword [ebx], 1        ; mem_lower and mem_upper are valid
  mov al, 0x12
  jz leave_with
  cmp dword [ebx + 8], 1024  ; KiB above 1 MiB
  jb leave_with
  test dword [ebx], 4        ; cmdline is valid
  mov al, 0x13
  jz leave_with
  mov esi, [ebx + 16]
  call print
  mov esi, line_end
  call print
  mov ecx, cr0
  test cl, 1
  mov al, 0x14
  jz leave_with
  mov dword [0x0ffffc], 0x55aa55aa ; the last words below 1 MiB and 2 MiB differ only in address line 20
  mov dword [0x1ffffc], 0x12345678
  cmp dword [0x0ffffc], 0x12345678
  je leave_with
  mov al, 0x10
leave_with:
  out 0xf4, al
.forever:
  cli
  hlt
  jmp .forever

; Prints the text at esi.
print:
  lodsb
  test al, al
  jz .done
  mov dx, 0x402
  out dx, al
  out 0xe9, al
  mov dx, 0x3f8
  out dx, al
  jmp print
.done:
  ret

section .data
text: db "multiboot kernel started: ", 0
line_end: db 13, 10, 0

section .bss
align 16
  resb 4096
stack_top:
