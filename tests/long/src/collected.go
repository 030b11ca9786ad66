// SPDX-License-Identifier: Apache-2.0
// Go's own heap and stacks, its collector, and C memory through cgo.
package main

/*
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static unsigned long fill(size_t n, int c)
{
	unsigned char *p = malloc(n);
	unsigned long sum = 0;
	memset(p, c, n);
	for (size_t i = 0; i < n; i += 64)
		sum += p[i];
	free(p);
	return sum;
}

static unsigned char *lasting(size_t n)
{
	return mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
*/
import "C"

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"
)

type node struct {
	left, right *node
	data        [5]uint64
}

func tree(depth int, seed uint64) *node {
	if depth == 0 {
		return nil
	}
	n := &node{tree(depth-1, seed*2), tree(depth-1, seed*2+1), [5]uint64{seed, seed * 3}}
	return n
}

func (n *node) sum() uint64 {
	if n == nil {
		return 0
	}
	return n.data[0] ^ n.data[1] + n.left.sum()*31 + n.right.sum()
}

func deep(n int) uint64 {
	var pad [64]uint64
	if n == 0 {
		return 1
	}
	pad[n%64] = uint64(n)
	return deep(n-1) + pad[n%64]
}

func main() {
	const size = 64 << 20
	p := C.lasting(size)
	mem := unsafe.Slice((*byte)(unsafe.Pointer(p)), size)
	for i := 0; i < size; i += 512 {
		mem[i] = byte(i >> 9)
	}
	m := map[uint64][]byte{}
	var lock sync.Mutex
	var wait sync.WaitGroup
	total := uint64(0)
	for g := uint64(0); g < 8; g++ {
		wait.Add(1)
		go func(g uint64) {
			defer wait.Done()
			t := tree(15, g+1)
			s := t.sum() + deep(20000)
			for i := uint64(0); i < 30; i++ {
				s += uint64(C.fill(C.size_t(1<<20+i*4096), C.int(i+1)))
			}
			lock.Lock()
			total += s
			for i := uint64(0); i < 20000; i++ {
				m[g<<32|i] = append(m[g<<32|i/2], byte(i))
			}
			lock.Unlock()
		}(g)
		if g%3 == 2 {
			runtime.GC()
			debug.FreeOSMemory()
		}
	}
	wait.Wait()
	n := 0
	for _, b := range m {
		n += len(b)
	}
	for turn := 0; turn < 2; turn++ {
		for i := 0; i < size; i += 512 {
			if mem[i] != byte(i>>9) {
				panic(fmt.Sprint("C memory differs at ", i))
			}
		}
	}
	fmt.Println(total, len(m), n)
}
