// SPDX-License-Identifier: Apache-2.0
// A JVM heap that fills and is collected, direct buffers, threads.
import java.nio.ByteBuffer;
import java.util.*;
import java.util.concurrent.*;
import java.util.zip.CRC32;

public class Heap {
	public static void main(String[] args) throws Exception {
		Map<Integer, String> map = new HashMap<>();
		List<byte[]> arrays = new ArrayList<>();
		List<ByteBuffer> direct = new ArrayList<>();
		for (int i = 0; i < 24; i++) {
			ByteBuffer b = ByteBuffer.allocateDirect(4 << 20);
			for (int k = 0; k < b.capacity(); k += 64)
				b.putInt(k, k * 31 + i);
			direct.add(b);
		}
		for (int i = 0; i < 200000; i++)
			map.put(i, "value " + i);
		ExecutorService pool = Executors.newFixedThreadPool(3);
		List<Future<Long>> results = new ArrayList<>();
		for (int t = 0; t < 6; t++) {
			final int seed = t;
			results.add(pool.submit(() -> {
				Random random = new Random(seed);
				CRC32 crc = new CRC32();
				for (int i = 0; i < 40; i++) {
					byte[] b = new byte[1 << 20];
					random.nextBytes(b);
					crc.update(b);
				}
				return crc.getValue();
			}));
		}
		for (int i = 0; i < 120; i++)
			arrays.add(new byte[1000000]);
		CRC32 crc = new CRC32();
		for (ByteBuffer b : direct)
			crc.update(b.duplicate());
		for (Future<Long> f : results)
			System.out.print(f.get() + " ");
		System.gc();
		for (int i = direct.size() - 1; i >= 0; i--)
			crc.update(direct.get(i).duplicate());
		pool.shutdown();
		long sum = 0;
		for (String s : map.values())
			sum += s.hashCode();
		System.out.println(crc.getValue() + " " + sum + " " + arrays.size());
	}
}
