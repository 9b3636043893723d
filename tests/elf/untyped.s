# Symbols without type and size, as LLVM before 4 and assembly text leave them.
#
#     llvm-mc -triple bpfel -filetype obj untyped.s -o untyped.o

	.section socket,"ax",@progbits
	.globl first
first:
	r1 = counters ll
	r2 = *(u32 *)(r10 - 4)
	if r2 == 0 goto LBB0_2
	r0 = 1
	goto again
LBB0_2:
	r0 = 2
again:
	call helper
	exit
helper:
	r0 += 10
	exit
	.globl second
second:
	r0 = 7
	exit

	.section maps,"aw",@progbits
	.globl counters
counters:
	.long 2, 4, 8, 3
	.globl other
other:
	.long 1, 2, 8, 5
