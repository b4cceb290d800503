import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FsShell;
import org.apache.hadoop.hdfs.tools.DFSAdmin;
import org.apache.hadoop.hdfs.tools.DFSck;
import org.apache.hadoop.util.ToolRunner;

/**
 * Apache's shell, dfsadmin and fsck, called over and over in one process: a line of standard input is the tool
 * (fs, admin or fsck) and its arguments, percent-encoded and parted by tabs; the answer is a line with the exit
 * code and the number of bytes printed, and then these, standard output and error together. Arguments of
 * this program are key=value of the configuration.
 */
public final class Shells {
  public static void main(String[] args) throws Exception {
    PrintStream answers = System.out;
    Configuration base = new Configuration();
    for (String arg : args) {
      int at = arg.indexOf('=');
      base.set(arg.substring(0, at), arg.substring(at + 1));
    }
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      String[] words = line.split("\t", -1);
      for (int at = 0; at < words.length; at++) {
        words[at] = URLDecoder.decode(words[at], StandardCharsets.UTF_8);
      }
      ByteArrayOutputStream printed = new ByteArrayOutputStream();
      PrintStream both = new PrintStream(printed, true, StandardCharsets.UTF_8);
      System.setOut(both);
      System.setErr(both);
      int code = run(new Configuration(base), words);
      both.flush();
      answers.println(code + " " + printed.size());
      printed.writeTo(answers);
      answers.flush();
    }
  }

  private static int run(Configuration conf, String[] words) {
    String[] args = Arrays.copyOfRange(words, 1, words.length);
    try {
      switch (words[0]) {
        case "admin": return ToolRunner.run(new DFSAdmin(conf), args);
        case "fsck": return ToolRunner.run(new DFSck(conf), args);
        default: return ToolRunner.run(new FsShell(conf), args);
      }
    } catch (Throwable problem) {
      problem.printStackTrace();
      return -1;
    }
  }
}
