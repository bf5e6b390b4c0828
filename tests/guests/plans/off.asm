; A guest that powers off as soon as it has said a word: too soon for most plans.
; nasm -f bin off.asm
%include "plans/boot.inc"

  mov si, text
  call say
  ; The PIIX4 tells where the firmware put its PM registers; sleep type 0 there is S5.
  mov eax, 0x80000b40       ; 00:01.3, PMBA
  mov dx, 0xcf8
  out dx, eax
  mov dx, 0xcfc
  in eax, dx
  and ax, 0xffc0
  mov dx, ax
  add dx, 4                 ; PM1a control: SLP_EN
  mov ax, 0x2000
  out dx, ax
.wait:
  hlt
  jmp .wait

text: db "powering off", 13, 10, 0

%include "plans/boot_end.inc"
