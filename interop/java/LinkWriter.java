import java.net.URI;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Random;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.hdfs.DistributedFileSystem;

/**
 * Writes linked records until it is killed, and says after each hflush or hsync, on standard output, what was
 * flushed. Each record points to the flushed one before it; links.py checks the list, and says what is in a record.
 *
 * <p>Arguments: URI, number of the writer, seed, its files, records flushed so far, and where the last one is (file
 * and position; file -1 for none); then settings as KEY=VALUE. Prints "flushed FILE POSITION", "open FILE" before a
 * file may grow, and "closed FILE LENGTH"; what failed goes to standard error.
 */
public final class LinkWriter {
  private static final int HEADER = 40;
  private static final int STAY = 30;

  private final DistributedFileSystem fs;
  private final Random random;
  private final int number;
  private final int files;
  private long flushed;
  private int headFile;
  private long headAt;

  private LinkWriter(DistributedFileSystem fs, String[] args) {
    this.fs = fs;
    number = Integer.parseInt(args[1]);
    random = new Random(Long.parseLong(args[2]));
    files = Integer.parseInt(args[3]);
    flushed = Long.parseLong(args[4]);
    headFile = Integer.parseInt(args[5]);
    headAt = Long.parseLong(args[6]);
  }

  public static void main(String[] args) throws Exception {
    Configuration conf = new Configuration();
    for (String setting : Arrays.asList(args).subList(7, args.length)) {
      conf.set(setting.substring(0, setting.indexOf('=')), setting.substring(setting.indexOf('=') + 1));
    }
    // A client of its own after each failure: a stream that failed is never closed, and its client goes on
    // renewing the lease.
    for (LinkWriter writer = null; ; ) {
      try (FileSystem fs = FileSystem.newInstance(URI.create(args[0]), conf)) {
        LinkWriter next = new LinkWriter((DistributedFileSystem) fs, args);
        if (writer != null) {
          next.flushed = writer.flushed;
          next.headFile = writer.headFile;
          next.headAt = writer.headAt;
          next.random.setSeed(writer.random.nextLong());
        }
        writer = next;
        while (true) {
          writer.visit(writer.random.nextInt(writer.files));
        }
      } catch (Exception problem) {
        System.err.println("writer " + args[1] + ": " + problem);
        Thread.sleep(100);
      }
    }
  }

  private void visit(int file) throws Exception {
    Path path = new Path("/links/w" + number + "/f" + file);
    System.out.println("open " + file);
    FSDataOutputStream out;
    if (fs.exists(path)) {
      while (!fs.isFileClosed(path) && !fs.recoverLease(path)) {
        Thread.sleep(200);
      }
      out = fs.append(path);
    } else {
      out = fs.create(path, false);
    }
    for (int left = random.nextInt(STAY); left >= 0; left--) {
      if (random.nextInt(3) == 0) {
        out.write(new byte[1 + random.nextInt(3000)]); // nobody points to it
      }
      long at = out.getPos();
      out.write(record(HEADER + random.nextInt(random.nextInt(8) == 0 ? 40_000 : 700)));
      if (random.nextInt(4) == 0) {
        out.hsync();
      } else {
        out.hflush();
      }
      headFile = file;
      headAt = at;
      flushed++;
      System.out.println("flushed " + file + " " + at);
    }
    long length = out.getPos();
    out.close();
    System.out.println("closed " + file + " " + length);
  }

  private byte[] record(int length) {
    ByteBuffer record = ByteBuffer.allocate(length);
    record.put("mob link".getBytes(java.nio.charset.StandardCharsets.US_ASCII));
    record.putInt(number).putInt(length).putLong(flushed).putInt(headFile).putLong(headFile < 0 ? 0 : headAt).putInt(0);
    for (int at = HEADER; at < length; at++) {
      record.put((byte) ((at * 31L + flushed * 17 + number) % 251));
    }
    return record.array();
  }
}
