// SPDX-License-Identifier: Apache-2.0
// What C++ programs keep: vectors that grow, maps of strings, a deque, exceptions.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

struct node {
	std::unique_ptr<node> left, right;
	uint64_t key;
};

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	return x ^ (x >> 31);
}

int main()
{
	std::vector<uint64_t> v;
	std::unordered_map<uint64_t, std::string> h;
	std::map<std::string, std::vector<int>> m;
	std::deque<uint64_t> d;
	std::unique_ptr<node> root;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < 4000000; i++)
		v.push_back(mix(i));
	std::sort(v.begin(), v.end());
	for (uint64_t i = 0; i < 200000; i++) {
		h[v[i * 13 % v.size()]] = std::to_string(i);
		m[std::to_string(i % 5000)].push_back(static_cast<int>(i));
		d.push_back(i);
		if (i % 3 == 0) {
			sum += d.front();
			d.pop_front();
		}
	}
	for (uint64_t i = 0; i < 100000; i++) {
		auto *p = &root;
		uint64_t k = mix(i);
		while (*p)
			p = k < (*p)->key ? &(*p)->left : &(*p)->right;
		*p = std::make_unique<node>();
		(*p)->key = k;
		sum ^= k;
	}
	for (auto &[k, s] : h)
		sum += k ^ s.size();
	for (auto &[s, ints] : m)
		for (int i : ints)
			sum = sum * 31 + static_cast<uint64_t>(i);
	int thrown = 0;
	for (int i = 0; i < 1000; i++)
		try {
			std::vector<uint64_t> w(v.begin(), v.begin() + 10000 + i);
			if (w.at(static_cast<size_t>(10000 + i + i % 2 - 1)) && i % 2)
				thrown--;
		} catch (const std::out_of_range &) {
			thrown++;
		}
	printf("%lu %d %zu\n", sum, thrown, h.size());
}
