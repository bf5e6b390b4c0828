// <linux/kvm.h> as the kernel means it. Its flexible arrays sit behind an empty struct, which has no size in
// C but one byte in C++: that shifts the arrays and changes the ioctl numbers. Include this instead of the
// header itself.
#pragma once
#pragma GCC system_header

#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[]
#include <linux/kvm.h>

static_assert(sizeof(kvm_irq_routing) == 8 && sizeof(kvm_cpuid2) == 8 && sizeof(kvm_msrs) == 8);
static_assert(sizeof(kvm_coalesced_mmio_ring) == 8);
