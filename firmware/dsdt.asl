// The differentiated system description of the i440FX/PIIX board, ACPI 1.0 and static: Windows XP's halacpi, halaacpi
// and halmacpi read it. acpi.cpp patches the value of PMIN and SERN; processors come in an SSDT.
DefinitionBlock ("dsdt.aml", "DSDT", 1, "WHISTL", "WHISTPC", 1)
{
    Scope (\)
    {
        Name (PMIN, 0xC0000001)    // first address of the 32-bit PCI window; patched
        Name (SERN, 0x7F)          // serial ports present, a bit each; patched
        Name (PICF, 0x00)          // interrupt model the system chose: 0 PIC, 1 APIC

        Method (_PIC, 1, NotSerialized)
        {
            Store (Arg0, PICF)
        }

        // S5 only: type 0 in PM1_CNT, as the PIIX4 defines soft off.
        Name (_S5, Package (0x04) { 0x00, 0x00, 0x00, 0x00 })
    }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            Name (_ADR, 0x00)
            Name (_UID, 0x00)

            Name (CRES, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                    0x0000, 0x0000, 0x00FF, 0x0000, 0x0100)
                IO (Decode16, 0x0CF8, 0x0CF8, 0x01, 0x08)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0x0000, 0x0000, 0x0CF7, 0x0000, 0x0CF8)
                // The gap below 0xB000 is where the general purpose events are.
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0x0000, 0x0D00, 0xADFF, 0x0000, 0xA100)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0x0000, 0xB000, 0xFFFF, 0x0000, 0x5000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0x00000000, 0x000A0000, 0x000BFFFF, 0x00000000, 0x00020000)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0x00000000, 0xC0000000, 0xFEBFFFFF, 0x00000000, 0x3EC00000, , , WMEM)
            })

            Method (_CRS, 0, NotSerialized)
            {
                CreateDWordField (CRES, \_SB.PCI0.WMEM._MIN, WMIN)
                CreateDWordField (CRES, \_SB.PCI0.WMEM._MAX, WMAX)
                CreateDWordField (CRES, \_SB.PCI0.WMEM._LEN, WLEN)
                Store (PMIN, WMIN)
                Add (Subtract (WMAX, WMIN), 0x01, WLEN)
                Return (CRES)
            }

            // Pin p (0 = INTA) of slot s is wired to PIRQ (s - 1 + p) mod 4. The PM function, slot 1 INTA, drives the
            // SCI line itself.
            Method (_PRT, 0, Serialized)
            {
                Name (PRTB, Package (0x80) {})
                Store (0x00, Local0)
                While (LLess (Local0, 0x80))
                {
                    ShiftRight (Local0, 0x02, Local1)
                    And (Add (Add (Local0, Local1), 0x03), 0x03, Local2)
                    If (LEqual (Local0, 0x04)) { Store (Package (0x04) { 0x00, 0x00, LNKS, 0x00 }, Local3) }
                    Else
                    {
                        If (LEqual (Local2, 0x00)) { Store (Package (0x04) { 0x00, 0x00, LNKA, 0x00 }, Local3) }
                        If (LEqual (Local2, 0x01)) { Store (Package (0x04) { 0x00, 0x00, LNKB, 0x00 }, Local3) }
                        If (LEqual (Local2, 0x02)) { Store (Package (0x04) { 0x00, 0x00, LNKC, 0x00 }, Local3) }
                        If (LEqual (Local2, 0x03)) { Store (Package (0x04) { 0x00, 0x00, LNKD, 0x00 }, Local3) }
                    }
                    Store (Or (ShiftLeft (Local1, 0x10), 0xFFFF), Index (Local3, 0x00))
                    Store (And (Local0, 0x03), Index (Local3, 0x01))
                    Store (Local3, Index (PRTB, Local0))
                    Increment (Local0)
                }
                Return (PRTB)
            }

            Device (PX13)
            {
                Name (_ADR, 0x00010003)
            }

            Device (ISA)
            {
                Name (_ADR, 0x00010000)
                OperationRegion (PIRQ, PCI_Config, 0x60, 0x04)
                Field (PIRQ, ByteAcc, NoLock, Preserve)
                {
                    PRQA, 8,
                    PRQB, 8,
                    PRQC, 8,
                    PRQD, 8
                }

                Device (PIC)
                {
                    Name (_HID, EisaId ("PNP0000"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0020, 0x0020, 0x01, 0x02)
                        IO (Decode16, 0x00A0, 0x00A0, 0x01, 0x02)
                        IO (Decode16, 0x04D0, 0x04D0, 0x01, 0x02)
                        IRQNoFlags () { 2 }
                    })
                }
                Device (DMAC)
                {
                    Name (_HID, EisaId ("PNP0200"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0000, 0x0000, 0x01, 0x10)
                        IO (Decode16, 0x0081, 0x0081, 0x01, 0x0F)
                        IO (Decode16, 0x00C0, 0x00C0, 0x01, 0x20)
                        DMA (Compatibility, NotBusMaster, Transfer8_16) { 4 }
                    })
                }
                Device (TMR)
                {
                    Name (_HID, EisaId ("PNP0100"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0040, 0x0040, 0x01, 0x04)
                        IRQNoFlags () { 0 }
                    })
                }
                Device (RTC)
                {
                    Name (_HID, EisaId ("PNP0B00"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
                        IRQNoFlags () { 8 }
                    })
                }
                Device (SPKR)
                {
                    Name (_HID, EisaId ("PNP0800"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0061, 0x0061, 0x01, 0x01)
                    })
                }
                Device (FPU)
                {
                    Name (_HID, EisaId ("PNP0C04"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x00F0, 0x00F0, 0x01, 0x10)
                        IRQNoFlags () { 13 }
                    })
                }
                Device (KBD)
                {
                    Name (_HID, EisaId ("PNP0303"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0060, 0x0060, 0x01, 0x01)
                        IO (Decode16, 0x0064, 0x0064, 0x01, 0x01)
                        IRQNoFlags () { 1 }
                    })
                }
                Device (MOU)
                {
                    Name (_HID, EisaId ("PNP0F13"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IRQNoFlags () { 12 }
                    })
                }
                Device (COM1)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 0x01)
                    Method (_STA, 0, NotSerialized)
                    {
                        If (And (SERN, 0x01)) { Return (0x0F) }
                        Return (0x00)
                    }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08)
                        IRQNoFlags () { 4 }
                    })
                }
                Device (COM2)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 0x02)
                    Method (_STA, 0, NotSerialized)
                    {
                        If (And (SERN, 0x02)) { Return (0x0F) }
                        Return (0x00)
                    }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x02F8, 0x02F8, 0x01, 0x08)
                        IRQNoFlags () { 3 }
                    })
                }
                // Ports of the chip set that no other device claims: PM, SMBus, GPE0, SMI command.
                Device (SYSR)
                {
                    Name (_HID, EisaId ("PNP0C02"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0092, 0x0092, 0x01, 0x01)
                        IO (Decode16, 0x00B2, 0x00B2, 0x01, 0x02)
                        IO (Decode16, 0xAFE0, 0xAFE0, 0x01, 0x04)
                        IO (Decode16, 0x0600, 0x0600, 0x01, 0x40)
                        IO (Decode16, 0x0700, 0x0700, 0x01, 0x10)
                    })
                }
            }
        }

        // The PIRQ registers of the PIIX3: bit 7 set routes nowhere, else bits 3..0 are the IRQ.
        Method (LSTA, 1, NotSerialized)
        {
            If (And (Arg0, 0x80)) { Return (0x09) }
            Return (0x0B)
        }
        Method (LCRS, 1, Serialized)
        {
            Name (LRES, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 0 }
            })
            CreateDWordField (LRES, 0x05, LIRQ)
            If (And (Arg0, 0x80)) { Store (0x00, LIRQ) }
            Else { And (Arg0, 0x0F, LIRQ) }
            Return (LRES)
        }

        Device (LNKA)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 0x00)
            Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 } })
            Method (_STA, 0, NotSerialized) { Return (LSTA (\_SB.PCI0.ISA.PRQA)) }
            Method (_DIS, 0, NotSerialized) { Or (\_SB.PCI0.ISA.PRQA, 0x80, \_SB.PCI0.ISA.PRQA) }
            Method (_CRS, 0, NotSerialized) { Return (LCRS (\_SB.PCI0.ISA.PRQA)) }
            Method (_SRS, 1, NotSerialized)
            {
                CreateDWordField (Arg0, 0x05, SIRQ)
                Store (SIRQ, \_SB.PCI0.ISA.PRQA)
            }
        }
        Device (LNKB)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 0x01)
            Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 } })
            Method (_STA, 0, NotSerialized) { Return (LSTA (\_SB.PCI0.ISA.PRQB)) }
            Method (_DIS, 0, NotSerialized) { Or (\_SB.PCI0.ISA.PRQB, 0x80, \_SB.PCI0.ISA.PRQB) }
            Method (_CRS, 0, NotSerialized) { Return (LCRS (\_SB.PCI0.ISA.PRQB)) }
            Method (_SRS, 1, NotSerialized)
            {
                CreateDWordField (Arg0, 0x05, SIRQ)
                Store (SIRQ, \_SB.PCI0.ISA.PRQB)
            }
        }
        Device (LNKC)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 0x02)
            Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 } })
            Method (_STA, 0, NotSerialized) { Return (LSTA (\_SB.PCI0.ISA.PRQC)) }
            Method (_DIS, 0, NotSerialized) { Or (\_SB.PCI0.ISA.PRQC, 0x80, \_SB.PCI0.ISA.PRQC) }
            Method (_CRS, 0, NotSerialized) { Return (LCRS (\_SB.PCI0.ISA.PRQC)) }
            Method (_SRS, 1, NotSerialized)
            {
                CreateDWordField (Arg0, 0x05, SIRQ)
                Store (SIRQ, \_SB.PCI0.ISA.PRQC)
            }
        }
        Device (LNKD)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 0x03)
            Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 } })
            Method (_STA, 0, NotSerialized) { Return (LSTA (\_SB.PCI0.ISA.PRQD)) }
            Method (_DIS, 0, NotSerialized) { Or (\_SB.PCI0.ISA.PRQD, 0x80, \_SB.PCI0.ISA.PRQD) }
            Method (_CRS, 0, NotSerialized) { Return (LCRS (\_SB.PCI0.ISA.PRQD)) }
            Method (_SRS, 1, NotSerialized)
            {
                CreateDWordField (Arg0, 0x05, SIRQ)
                Store (SIRQ, \_SB.PCI0.ISA.PRQD)
            }
        }
        // The SCI: fixed.
        Device (LNKS)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 0x04)
            Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 9 } })
            Method (_STA, 0, NotSerialized) { Return (0x0B) }
            Method (_DIS, 0, NotSerialized) {}
            Method (_CRS, 0, NotSerialized) { Return (_PRS) }
            Method (_SRS, 1, NotSerialized) {}
        }
    }

    // General purpose events: none is wired, but the block must exist.
    Scope (\_GPE)
    {
        Name (_HID, "ACPI0006")
    }
}
