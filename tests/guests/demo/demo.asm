; The guest that `./run` boots when it is given nothing else: it shows that the machine is a PC.
;
; Started by the BIOS from a disk's boot sector, it loads the rest of itself, paints a screen in the 80x25 text mode and
; tells what it finds: processor (CPUID), memory (INT 15h, E820), disk (INT 13h), PCI devices (ports 0xCF8 and 0xCFC) and
; the time. What is typed, on the keyboard or on the first serial port, appears on both. Esc powers the machine off
; through ACPI, F5 starts it again, F2 changes the colours.
;
; It stays in real mode on purpose: there it runs even where KVM only emulates.
; nasm -f bin demo.asm
bits 16
cpu 686
org 0x7c00

SCREEN     equ 0xb800
COM1       equ 0x3f8
COLUMNS    equ 80
EDIT_TOP   equ 20
EDIT_ROWS  equ 3
EDIT_LEFT  equ 4
EDIT_RIGHT equ 75          ; last column that is typed in
VALUE_LEFT equ 16
SERIAL_WAIT equ 20000      ; polls of a transmitter that does not get ready: then the character is lost

; ---- boot sector ------------------------------------------------------------------------------------------------

  jmp 0:boot
boot:
  cli
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, 0x7c00
  sti
  cld
  mov [boot_drive], dl
  mov si, packet
  mov ah, 0x42
  int 0x13
  jnc main
  mov si, read_failed
.next:
  lodsb
  test al, al
  jz halt
  mov ah, 0x0e
  mov bx, 7
  int 0x10
  jmp .next
halt:
  hlt
  jmp halt

read_failed: db "The demo cannot be read from the disk.", 13, 10, 0
align 4
packet:
  dw 16
  dw (end - second_stage + 511) / 512
  dw second_stage, 0
  dq 1
boot_drive: db 0

  times 446 - ($ - $$) db 0
  db 0x80, 0, 2, 0, 0xda, 2, 32, 2
  dd 1, 2047
  times 510 - ($ - $$) db 0
  dw 0xaa55

; ---- the demo ---------------------------------------------------------------------------------------------------

second_stage:
main:
  call serial_start
  mov ax, 3                 ; 80x25, 16 colours
  int 0x10
  call paint
  call facts
  call prompt
.loop:
  call clock
  call keyboard
  call serial_input
  hlt                       ; until the next timer tick or key
  jmp .loop

; ---- screen -----------------------------------------------------------------------------------------------------

; Fills columns [dl, dh] of row bh with character al in colour ah. Keeps all registers.
fill:
  pusha
  push es
  mov cx, SCREEN
  mov es, cx
  mov cl, dh
  sub cl, dl
  inc cl
  xor ch, ch
  call cell
  rep stosw
  pop es
  popa
  ret

; di = address of row bh, column dl
cell:
  push ax
  mov al, COLUMNS
  mul bh
  movzx di, dl
  add di, ax
  shl di, 1
  pop ax
  ret

; Writes the text at si in colour ah from row bh, column dl. Keeps all registers.
print:
  pusha
  push es
  mov cx, SCREEN
  mov es, cx
  call cell
.next:
  lodsb
  test al, al
  jz .done
  stosw
  jmp .next
.done:
  pop es
  popa
  ret

paint:
  mov bp, [theme]
  mov bh, 0
.rows:                      ; the background
  mov ah, [bp + Theme.text]
  mov al, ' '
  mov dx, 79 << 8
  call fill
  inc bh
  cmp bh, 25
  jb .rows

  mov ah, [bp + Theme.bar]
  mov bh, 0
  call fill
  mov bh, 24
  call fill
  mov bh, 0
  mov dl, 2
  mov si, text_title
  call print
  mov bh, 24
  mov si, text_keys
  call print

  mov si, banner            ; one colour a row, '#' stands for a full block
  mov bh, 2
  xor cx, cx
.banner_row:
  mov di, bp
  add di, cx
  mov ah, [di + Theme.banner]
  push cx
  push es
  push word SCREEN
  pop es
  mov dl, BANNER_LEFT
  call cell
  mov cx, BANNER_WIDTH
.banner_cell:
  lodsb
  cmp al, '#'
  mov al, ' '
  jne .blank
  mov al, 0xdb
.blank:
  stosw
  loop .banner_cell
  pop es
  pop cx
  inc bh
  inc cx
  cmp cx, BANNER_ROWS
  jb .banner_row

  mov ah, [bp + Theme.text]
  mov bh, 10
  mov dl, (COLUMNS - (text_tagline_end - text_tagline)) / 2
  mov si, text_tagline
  call print

  ; the frame to type in
  mov ah, [bp + Theme.frame]
  mov dl, EDIT_LEFT - 2
  mov dh, EDIT_RIGHT + 2
  mov al, 0xc4
  mov bh, EDIT_TOP - 1
  call fill
  mov bh, EDIT_TOP + EDIT_ROWS
  call fill
  mov bh, EDIT_TOP
.sides:
  push dx
  mov al, 0xb3
  mov dh, dl
  call fill
  mov dl, EDIT_RIGHT + 2
  mov dh, dl
  call fill
  pop dx
  inc bh
  cmp bh, EDIT_TOP + EDIT_ROWS
  jb .sides
  mov si, corners
.corner:
  lodsw                     ; row, column
  test ax, ax
  jz .title
  mov bh, al
  mov dl, ah
  mov dh, dl
  lodsb
  mov ah, [bp + Theme.frame]
  call fill
  jmp .corner
.title:
  mov ah, [bp + Theme.bar]
  mov bh, EDIT_TOP - 1
  mov dl, EDIT_LEFT
  mov si, text_type
  call print
  ret

corners:
  db EDIT_TOP - 1, EDIT_LEFT - 2, 0xda
  db EDIT_TOP - 1, EDIT_RIGHT + 2, 0xbf
  db EDIT_TOP + EDIT_ROWS, EDIT_LEFT - 2, 0xc0
  db EDIT_TOP + EDIT_ROWS, EDIT_RIGHT + 2, 0xd9
  dw 0

; ---- what is typed ----------------------------------------------------------------------------------------------

keyboard:
  mov ah, 1
  int 0x16
  jz .none
  mov ah, 0
  int 0x16
  cmp ah, 0x3c              ; F2
  je next_theme
  cmp ah, 0x3f              ; F5
  je restart
  test al, al
  jz keyboard               ; other function keys
  cmp al, 0xe0
  je keyboard
  call typed
  jmp keyboard
.none:
  ret

serial_input:
  mov dx, COM1 + 5
  in al, dx
  cmp al, 0xff              ; no such port
  je .none
  test al, 1
  jz .none
  mov dx, COM1
  in al, dx
  call typed
  jmp serial_input
.none:
  ret

; Handles one typed character, al.
typed:
  cmp al, 27
  je power_off
  cmp al, 13
  je .line_end
  cmp al, 8
  je .erase
  cmp al, 127
  je .erase
  cmp al, ' '
  jb .done
  call serial_put
  mov bx, [cursor]
  mov dl, bl
  mov bp, [theme]
  mov ah, [bp + Theme.typed]
  mov dh, dl
  call fill
  inc bl
  mov [cursor], bx
  cmp bl, EDIT_RIGHT
  ja .new_row
  jmp show_cursor
.line_end:
  mov al, 13
  call serial_put
  mov al, 10
  call serial_put
.new_row:
  mov bx, [cursor]
  mov bl, EDIT_LEFT
  inc bh
  cmp bh, EDIT_TOP + EDIT_ROWS
  jb .placed
  dec bh
  mov bp, [theme]
  push bx
  mov ax, 0x0601            ; scroll the frame's inside up by one row
  mov bh, [bp + Theme.typed]
  mov cx, (EDIT_TOP << 8) | EDIT_LEFT
  mov dx, ((EDIT_TOP + EDIT_ROWS - 1) << 8) | EDIT_RIGHT
  int 0x10
  pop bx
.placed:
  mov [cursor], bx
  jmp show_cursor
.erase:
  mov bx, [cursor]
  cmp bl, EDIT_LEFT
  je .done
  mov al, 8
  call serial_put
  mov al, ' '
  call serial_put
  mov al, 8
  call serial_put
  dec bl
  mov [cursor], bx
  mov dl, bl
  mov dh, dl
  mov bp, [theme]
  mov ah, [bp + Theme.typed]
  mov al, ' '
  call fill
  jmp show_cursor
.done:
  ret

prompt:
  mov si, text_serial_prompt
  call serial_print
show_cursor:
  mov dx, [cursor]
  mov bh, 0
  mov ah, 2
  int 0x10
  ret

next_theme:
  mov ax, [theme]
  add ax, Theme_size
  cmp ax, themes_end
  jb .set
  mov ax, themes
.set:
  mov [theme], ax
  mov byte [quiet], 1       ; the serial port has read it all before
  mov byte [shown_second], 0xff
  mov word [cursor], (EDIT_TOP << 8) | EDIT_LEFT
  call paint
  call facts
  mov byte [quiet], 0
  jmp show_cursor

; ---- facts ------------------------------------------------------------------------------------------------------

facts:
  mov si, text_serial_title
  call serial_print

  ; Processor: the vendor's name, then the marketing name if there is one.
  mov di, value
  mov eax, 0
  cpuid
  mov eax, ebx
  stosd
  mov eax, edx
  stosd
  mov eax, ecx
  stosd
  mov byte [di], 0
  mov eax, 0x80000000
  cpuid
  cmp eax, 0x80000004
  jb .no_name
  push di
  mov ax, ', '
  stosw
  mov ebp, 0x80000002
.name:
  mov eax, ebp
  cpuid
  stosd
  mov eax, ebx
  stosd
  mov eax, ecx
  stosd
  mov eax, edx
  stosd
  inc ebp
  cmp ebp, 0x80000004
  jbe .name
  mov byte [di], 0
  pop di
  cmp byte [di + 2], 0      ; a name of nothing
  jne .no_name
  mov byte [di], 0
.no_name:
  mov bh, 12
  mov si, text_processor
  call fact

  ; Memory: the sum of the usable ranges of the map.
  xor ebx, ebx
  xor ebp, ebp              ; KiB
  mov word [ranges], 0
.range:
  mov eax, 0xe820
  mov edx, 0x534d4150       ; 'SMAP'
  mov ecx, 20
  mov di, map_entry
  int 0x15
  jc .ranges_end
  cmp eax, 0x534d4150
  jne .ranges_end
  inc word [ranges]
  cmp dword [map_entry + 16], 1
  jne .not_usable
  mov eax, [map_entry + 8]
  mov edx, [map_entry + 12]
  shrd eax, edx, 10
  add ebp, eax
.not_usable:
  test ebx, ebx
  jnz .range
.ranges_end:
  mov di, value
  mov eax, ebp
  add eax, 1023             ; the BIOS keeps a few hundred KiB: count them in
  shr eax, 10
  call append_decimal
  mov si, text_usable
  call append
  movzx eax, word [ranges]
  call append_decimal
  mov si, text_ranges
  call append
  mov bh, 13
  mov si, text_memory
  call fact

  ; Disk: size as the BIOS tells it.
  mov di, value
  mov word [drive_facts], 30
  mov ah, 0x48
  mov dl, [boot_drive]
  mov si, drive_facts
  int 0x13
  jc .no_disk
  mov eax, [drive_facts + 16]
  push eax
  call append_decimal
  mov si, text_sectors
  call append
  pop eax
  shr eax, 1
  call append_decimal
  mov si, text_kib
  call append
  jmp .disk
.no_disk:
  mov si, text_unknown
  call append
.disk:
  mov bh, 14
  mov si, text_disk
  call fact

  ; PCI: every function of bus 0.
  mov di, value
  mov ebp, 0x80000000       ; enable bit, bus, device, function, register
.function:
  mov dx, 0xcf8
  mov eax, ebp
  out dx, eax
  mov dx, 0xcfc
  in eax, dx
  cmp ax, 0xffff
  je .no_function
  cmp di, value + 6 * 10
  jae .no_function
  push eax
  call append_hex
  mov al, ':'
  stosb
  pop eax
  shr eax, 16
  call append_hex
  mov al, ' '
  stosb
.no_function:
  add ebp, 0x100
  cmp ebp, 0x80010000
  jb .function
  mov byte [di], 0
  mov bh, 15
  mov si, text_pci
  call fact

  ; Firmware: the date every BIOS has at the top of its segment, and the base memory it left.
  mov di, value
  mov si, text_dated
  call append
  push ds
  push word 0xf000
  pop ds
  mov si, 0xfff5
  mov cx, 8
  rep movsb
  pop ds
  mov si, text_comma
  call append
  int 0x12
  movzx eax, ax
  call append_decimal
  mov si, text_base
  call append
  mov bh, 16
  mov si, text_firmware
  call fact

  ; When it started.
  mov di, value
  call append_date
  mov bh, 17
  mov si, text_started
  call fact
  ret

; Shows "label  value" in row bh, si = label, and on the serial port.
fact:
  mov bp, [theme]
  mov dl, 4
  mov ah, [bp + Theme.label]
  call print
  call serial_print
  mov si, value
.spaces:                    ; names come padded on the left
  cmp byte [si], ' '
  jne .trimmed
  inc si
  jmp .spaces
.trimmed:
  mov byte [value + COLUMNS - VALUE_LEFT - 4], 0
  mov dl, VALUE_LEFT
  mov ah, [bp + Theme.text]
  call print
  call serial_print
  mov si, text_line_end
  jmp serial_print

; The time in the upper right corner, painted once a second. The RTC is asked only every few ticks.
clock:
  mov ah, 2
  int 0x1a
  jc .done
  cmp dh, [shown_second]
  je .done
  mov [shown_second], dh
  mov di, value
  call append_time
  mov si, value
  mov bp, [theme]
  mov ah, [bp + Theme.bar]
  mov bh, 0
  mov dl, 70
  call print
.done:
  ret

; ---- text building: all append at di and leave a zero there ------------------------------------------------------

append:
  lodsb
  mov [di], al
  test al, al
  jz .done
  inc di
  jmp append
.done:
  ret

append_decimal:             ; eax
  mov ebx, 10
  xor cx, cx
.divide:
  xor edx, edx
  div ebx
  push dx
  inc cx
  test eax, eax
  jnz .divide
.digits:
  pop ax
  add al, '0'
  stosb
  loop .digits
  mov byte [di], 0
  ret

append_hex:                 ; ax, four digits
  mov cx, 4
.next:
  rol ax, 4
  push ax
  and al, 15
  cmp al, 10
  sbb al, 0x69
  das                       ; 0..15 -> '0'..'9', 'A'..'F'
  or al, 0x20               ; lower case; digits have that bit already
  stosb
  pop ax
  loop .next
  mov byte [di], 0
  ret

append_bcd:                 ; al, two digits
  push ax
  shr al, 4
  add al, '0'
  stosb
  pop ax
  and al, 15
  add al, '0'
  stosb
  mov byte [di], 0
  ret

append_date:
  mov ah, 4                 ; ch century, cl year, dh month, dl day, all BCD
  int 0x1a
  jc append_time.done
  mov al, ch
  call append_bcd
  mov al, cl
  call append_bcd
  mov al, '-'
  stosb
  mov al, dh
  call append_bcd
  mov al, '-'
  stosb
  mov al, dl
  call append_bcd
  mov al, ' '
  stosb
append_time:
  mov ah, 2                 ; ch hours, cl minutes, dh seconds
  int 0x1a
  jc .done
  mov al, ch
  call append_bcd
  mov al, ':'
  stosb
  mov al, cl
  call append_bcd
  mov al, ':'
  stosb
  mov al, dh
  call append_bcd
.done:
  ret

; ---- serial port ------------------------------------------------------------------------------------------------

serial_start:               ; 115200 baud, 8N1, FIFOs on
  mov si, serial_setup
  mov cx, (serial_setup_end - serial_setup) / 2
.next:
  lodsw
  movzx dx, ah
  add dx, COM1
  out dx, al
  loop .next
  ret

serial_setup:               ; value, register
  db 0x00, 1,  0x80, 3,  0x01, 0,  0x00, 1,  0x03, 3,  0x07, 2,  0x03, 4
serial_setup_end:

serial_put:                 ; al; keeps all registers
  pusha
  cmp byte [quiet], 0
  jne .done
  mov ah, al
  mov cx, SERIAL_WAIT
  mov dx, COM1 + 5
.wait:
  in al, dx
  test al, 0x20
  jnz .ready
  loop .wait
  jmp .done
.ready:
  mov al, ah
  mov dx, COM1
  out dx, al
.done:
  popa
  ret

serial_print:               ; the text at si; keeps all registers
  pusha
.next:
  lodsb
  test al, al
  jz .done
  call serial_put
  jmp .next
.done:
  popa
  ret

; ---- the way out ------------------------------------------------------------------------------------------------

restart:
  mov si, text_restart
  call serial_print
  mov word [0x472], 0       ; a cold start
  mov dx, 0xcf9
  mov al, 2
  out dx, al
  mov al, 6
  out dx, al
  mov al, 0xfe              ; a machine without that port
  out 0x64, al
  jmp halt

power_off:
  mov si, text_bye
  call serial_print
  mov bp, [theme]
  mov ah, [bp + Theme.bar]
  mov bh, 24
  mov al, ' '
  mov dx, 79 << 8
  call fill
  mov dl, 2
  mov si, text_bye_screen
  call print

  ; ACPI: the PIIX4 tells where the firmware put its PM registers. S5 is sleep type 0 there.
  mov ebp, 0x80000000
.search:
  mov dx, 0xcf8
  mov eax, ebp
  out dx, eax
  mov dx, 0xcfc
  in eax, dx
  cmp eax, 0x71138086
  je .found
  add ebp, 0x100
  cmp ebp, 0x80010000
  jb .search
  jmp .apm
.found:
  mov eax, ebp
  mov al, 0x40              ; PMBA
  mov dx, 0xcf8
  out dx, eax
  mov dx, 0xcfc
  in eax, dx
  and ax, 0xffc0
  jz .apm
  mov dx, ax
  add dx, 4                 ; PM1a control: SLP_EN, SLP_TYP 0
  mov ax, 0x2000
  out dx, ax

.apm:                       ; an older machine: connect to APM, claim version 1.2, switch all devices off
  mov ax, 0x5301
  xor bx, bx
  int 0x15
  mov ax, 0x530e
  xor bx, bx
  mov cx, 0x0102
  int 0x15
  mov ax, 0x5307
  mov bx, 1
  mov cx, 3
  int 0x15
  mov bh, 24
  mov dl, 2
  mov bp, [theme]
  mov ah, [bp + Theme.bar]
  mov si, text_switch_off
  call print
  jmp halt

; ---- data -------------------------------------------------------------------------------------------------------

struc Theme
  .text:   resb 1
  .bar:    resb 1
  .label:  resb 1
  .frame:  resb 1
  .typed:  resb 1
  .banner: resb BANNER_ROWS
endstruc

themes:
  db 0x17, 0x30, 0x1b, 0x1b, 0x1f,  0x1f, 0x1f, 0x1b, 0x1b, 0x13, 0x13, 0x19 ; deep blue
  db 0x07, 0x70, 0x0e, 0x06, 0x0f,  0x0f, 0x0f, 0x0e, 0x0e, 0x0c, 0x0c, 0x04 ; ember
  db 0x07, 0x20, 0x0a, 0x02, 0x0f,  0x0f, 0x0f, 0x0a, 0x0a, 0x02, 0x02, 0x08 ; forest
themes_end:

BANNER_ROWS  equ 7
BANNER_WIDTH equ 65
BANNER_LEFT  equ (COLUMNS - BANNER_WIDTH) / 2
banner:
  db "##     ##   ##       ##              ##     ##                   "
  db "##     ##   ##                       ##     ##                   "
  db "##     ##   #####    ##    #####   ######   ##    #####    ## ###"
  db "##  #  ##   ##  ##   ##   ##         ##     ##   ##   ##   #### #"
  db "## ### ##   ##  ##   ##    ####      ##     ##   #######   ##    "
  db "#### ####   ##  ##   ##       ##     ##     ##   ##        ##    "
  db "##     ##   ##  ##   ##   #####       ###   ##    #####    ##    "

text_title:    db "Whistler", 0
text_keys:     db "Esc Power off   F5 Restart   F2 Colours", 0
text_tagline:  db "A PC of the year 2001. This guest was started by its BIOS from a disk."
text_tagline_end: db 0
text_type:     db " Type something ", 0
text_processor: db "Processor   ", 0
text_memory:   db "Memory      ", 0
text_disk:     db "Disk        ", 0
text_pci:      db "PCI bus     ", 0
text_firmware: db "BIOS        ", 0
text_started:  db "Started     ", 0
text_usable:   db " MiB usable, ", 0
text_ranges:   db " ranges in the memory map", 0
text_sectors:  db " sectors, ", 0
text_kib:      db " KiB", 0
text_unknown:  db "unknown", 0
text_dated:    db "of ", 0
text_comma:    db ", ", 0
text_base:     db " KiB of base memory", 0
text_line_end: db 13, 10, 0
text_serial_title:  db 13, 10, "Whistler demo", 13, 10, 13, 10, 0
text_serial_prompt: db 13, 10, "Type something; Esc powers off.", 13, 10, "> ", 0
text_bye:      db 13, 10, "Powering off.", 13, 10, 0
text_bye_screen: db "Powering off.", 0
text_restart:  db 13, 10, "Restarting.", 13, 10, 0
text_switch_off: db "The machine may be switched off now.", 0

theme:         dw themes
cursor:        dw (EDIT_TOP << 8) | EDIT_LEFT
shown_second:  db 0xff
quiet:         db 0
end:

section .bss
value:       resb 128
map_entry:   resb 24
drive_facts: resb 32
ranges:      resw 1
