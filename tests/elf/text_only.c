/* Programs in .text alone, with debug information (relocations that are none of a program's).
 *
 *     clang -O2 -g -ffile-prefix-map=$PWD=. -target bpf -c text_only.c -o text_only.o
 */

int first(void) { return 1; }
int second(void) { return 2; }
