; A 64 KiB BIOS image that does one thing many times and leaves by the debug exit port: 0 is success (exit status 1),
; 0x3F a disk error, 0x3E wrong data (exit statuses 127 and 125).
;
;   -DCOUNT=0            leave with the very first instruction
;   -DMODE=1 -DCOUNT=n   n times: read one sector by PIO, wait for its interrupt
;   -DMODE=2 -DCOUNT=n   n times: read 4 KiB by bus-master DMA, wait for its interrupt
;
; The accesses to the controller are those of an operating system's driver, so that the exits counted are what a real
; guest causes. Every sector of the disk holds its own number in its first four bytes, which is checked.
; nasm -f bin -DMODE=m -DCOUNT=n rom.asm
bits 16
cpu 686
org 0

%ifndef MODE
%define MODE 0
%endif

BLOCKS     equ 2048            ; 4 KiB blocks on the disk
IDE        equ 0x1f0
CONTROL    equ 0x3f6
BUS_MASTER equ 0xc000
IDE_PCI    equ 0x80000900      ; bus 0, device 1, function 1
BUFFER     equ 0x2000          ; segment, and so physical 0x20000
PRD_TABLE  equ 0x1000          ; physical and in segment 0
VECTOR     equ 0x76 * 4        ; interrupt of IRQ 14

%macro pci_write 2             ; register, value
  mov dx, 0xcf8
  mov eax, IDE_PCI + %1
  out dx, eax
  mov dx, 0xcfc
  mov eax, %2
  out dx, eax
%endmacro

%macro out_byte 2              ; port, value
  mov dx, %1
  mov al, %2
  out dx, al
%endmacro

start:
  cli
  cld
  xor ax, ax
  mov ds, ax
  mov ss, ax
  mov sp, 0x7000
  mov word [VECTOR], interrupt
  mov word [VECTOR + 2], 0xf000
  mov ecx, 0x1b                ; IA32_APIC_BASE: without the local APIC interrupts come straight from the 8259
  rdmsr
  and ah, 0xf7
  wrmsr
  out_byte 0x20, 0x11          ; both interrupt controllers: only IRQ 14 and the cascade are open
  out_byte 0x21, 0x08
  out_byte 0x21, 0x04
  out_byte 0x21, 0x01
  out_byte 0x21, 0xfb
  out_byte 0xa0, 0x11
  out_byte 0xa1, 0x70
  out_byte 0xa1, 0x02
  out_byte 0xa1, 0x01
  out_byte 0xa1, 0xbf
  pci_write 0x40, 0x80008000   ; IDETIM: decode both channels
  pci_write 0x20, BUS_MASTER | 1
  pci_write 0x04, 5            ; I/O space, bus master
  out_byte CONTROL, 0
  out_byte IDE + 6, 0xe0
  mov dx, IDE + 7
.busy:
  in al, dx
  test al, 0x80
  jnz .busy
  mov dword [PRD_TABLE], BUFFER << 4
  mov dword [PRD_TABLE + 4], 0x80000000 + 4096
  mov ax, BUFFER
  mov es, ax
  mov ecx, COUNT
  xor esi, esi                 ; sector number

.next:
  push ecx
  mov byte [flag], 0
%if MODE = 2
  mov dx, BUS_MASTER + 4
  mov eax, PRD_TABLE
  out dx, eax
  out_byte BUS_MASTER, 0x08    ; direction: to memory
  mov dx, BUS_MASTER + 2
  in al, dx
  or al, 0x06                  ; clear interrupt and error
  out dx, al
  out_byte IDE + 2, 8
%else
  out_byte IDE + 2, 1
%endif
  mov eax, esi
  mov dx, IDE + 3
  out dx, al
  shr eax, 8
  inc dx
  out dx, al
  shr eax, 8
  inc dx
  out dx, al
  out_byte IDE + 6, 0xe0
%if MODE = 2
  out_byte IDE + 7, 0xc8       ; READ DMA
  out_byte BUS_MASTER, 0x09    ; start
%else
  out_byte IDE + 7, 0x20       ; READ SECTORS
%endif
.wait:
  cli
  cmp byte [flag], 0
  jne .done
  sti
  hlt
  jmp .wait
.done:
  test byte [status], 0x21     ; error or device fault
  jnz .failed
%if MODE = 2
  out_byte BUS_MASTER, 0x08    ; stop
%else
  xor di, di
  mov cx, 256
  mov dx, IDE
  rep insw
%endif
  cmp [es:0], esi
  jne .wrong
  pop ecx
  add esi, 8
  cmp esi, BLOCKS * 8
  jb .in_range
  xor esi, esi
.in_range:
  dec ecx
  jnz .next
  xor al, al
  jmp .leave
.failed:
  mov al, 0x3f
  jmp .leave
.wrong:
  mov al, 0x3e
.leave:
  out 0xf4, al
.forever:
  hlt
  jmp .forever

interrupt:
  push ax
  push dx
%if MODE = 2
  mov dx, BUS_MASTER + 2
  in al, dx
%endif
  mov dx, IDE + 7              ; reading the status takes the interrupt back
  in al, dx
  mov [status], al
  mov byte [flag], 1
  mov al, 0x20
  out 0xa0, al
  out 0x20, al
  pop dx
  pop ax
  iret

flag   equ 0x500
status equ 0x501

  times 0xfff0 - ($ - $$) db 0xff
%if COUNT = 0
  mov al, 0
  out 0xf4, al
  hlt
%else
  jmp 0xf000:start
%endif
  times 0x10000 - ($ - $$) db 0xff
