package org.apache.hadoop.hdfs;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.URI;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;

import net.bytebuddy.ByteBuddy;
import net.bytebuddy.dynamic.loading.ClassLoadingStrategy;
import net.bytebuddy.implementation.InvocationHandlerAdapter;
import net.bytebuddy.matcher.ElementMatchers;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FileUtil;
import org.apache.hadoop.fs.StorageType;
import org.apache.hadoop.hdfs.protocol.BlockListAsLongs;
import org.apache.hadoop.hdfs.protocol.ClientProtocol;
import org.apache.hadoop.hdfs.protocol.DatanodeID;
import org.apache.hadoop.hdfs.protocol.DatanodeInfo;
import org.apache.hadoop.hdfs.protocol.ExtendedBlock;
import org.apache.hadoop.hdfs.protocol.HdfsConstants.DatanodeReportType;
import org.apache.hadoop.hdfs.protocol.HdfsConstants.SafeModeAction;
import org.apache.hadoop.hdfs.server.common.HdfsServerConstants.StartupOption;
import org.apache.hadoop.hdfs.server.datanode.DataNode;
import org.apache.hadoop.hdfs.server.datanode.DatanodeUtil;
import org.apache.hadoop.hdfs.server.datanode.FinalizedReplica;
import org.apache.hadoop.hdfs.server.datanode.FsDatasetTestUtils;
import org.apache.hadoop.hdfs.server.datanode.Replica;
import org.apache.hadoop.hdfs.server.datanode.ReplicaNotFoundException;
import org.apache.hadoop.hdfs.server.namenode.FSNamesystem;
import org.apache.hadoop.hdfs.server.namenode.NameNode;
import org.apache.hadoop.hdfs.server.namenode.NameNodeAdapter;
import org.apache.hadoop.hdfs.server.protocol.DatanodeStorage;
import org.apache.hadoop.hdfs.server.protocol.NamenodeProtocols;
import org.apache.hadoop.ipc.RemoteException;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.test.GenericTestUtils;
import org.apache.hadoop.util.ExitUtil;
import org.mockito.Mockito;
import org.mockito.invocation.InvocationOnMock;

/**
 * Stands in for Hadoop's class of this name: the same face, but the cluster consists of processes of Mobula, so that
 * Hadoop's own tests judge them. What looks into a server's memory is answered with UnsupportedOperationException("shim: ..").
 */
public class MiniDFSCluster implements AutoCloseable {
  public static final String PROP_TEST_BUILD_DATA = GenericTestUtils.SYSPROP_TEST_DATA_DIR;
  public static final String HDFS_MINIDFS_BASEDIR = "hdfs.minidfs.basedir";
  public static final String HDFS_MINIDFS_BASEDIR_PROVIDED = "hdfs.minidfs.basedir.provided";
  public static final String DFS_NAMENODE_SAFEMODE_EXTENSION_TESTING_KEY =
      DFSConfigKeys.DFS_NAMENODE_SAFEMODE_EXTENSION_KEY + ".testing";
  public static final String DFS_NAMENODE_DECOMMISSION_INTERVAL_TESTING_KEY =
      DFSConfigKeys.DFS_NAMENODE_DECOMMISSION_INTERVAL_KEY + ".testing";

  private static final String BINARY = System.getProperty("mobula.binary");
  private static final File LOGS = new File(System.getProperty("mobula.logs", "/tmp"));
  /** HBase stops all nodes of a pipeline, one after the other: Hadoop's take their time, ours are gone at once. */
  private static final int STOP_MS = Integer.getInteger("mobula.stop.ms", 0);
  private static int instances;

  static { HdfsConfiguration.init(); }

  static RuntimeException not(String what) { return new UnsupportedOperationException("shim: " + what); }

  public static class Builder {
    private final Configuration conf;
    private int port;
    private int datanodes = 1;
    private int storages = 2;
    private StorageType[] types;
    private StorageType[][] typesEach;
    private long[] capacities;
    private long[][] capacitiesEach;
    private long[] simulated;
    private boolean format = true;
    private boolean manageData = true;
    private boolean waitSafeMode = true;
    private String[] racks;
    private String[] hosts;
    private Configuration[] overlays;
    private MiniDFSNNTopology topology;

    public Builder(Configuration conf) {
      this.conf = conf;
      if (conf.get(HDFS_MINIDFS_BASEDIR) == null) {
        conf.set(HDFS_MINIDFS_BASEDIR, new File(getBaseDirectory()).getAbsolutePath());
      }
    }

    public Builder(Configuration conf, File basedir) {
      if (basedir == null) throw new IllegalArgumentException("MiniDFSCluster base directory cannot be null");
      this.conf = conf;
      conf.set(HDFS_MINIDFS_BASEDIR, basedir.getAbsolutePath());
    }

    public Builder nameNodePort(int val) { port = val; return this; }
    public Builder nameNodeHttpPort(int val) { return this; }
    public Builder numDataNodes(int val) { datanodes = val; return this; }
    public Builder setDnHttpPorts(int... ports) { return this; }
    public Builder setDnIpcPorts(int... ports) { return this; }
    public Builder storagesPerDatanode(int val) { storages = val; return this; }
    public Builder storageTypes(StorageType[] val) { types = val; return this; }
    public Builder storageTypes(StorageType[][] val) { typesEach = val; return this; }
    public Builder storageCapacities(long[] val) { capacities = val; return this; }
    public Builder storageCapacities(long[][] val) { capacitiesEach = val; return this; }
    public Builder format(boolean val) { format = val; return this; }
    public Builder manageNameDfsDirs(boolean val) { return this; }
    public Builder manageNameDfsSharedDirs(boolean val) { return this; }
    public Builder enableManagedDfsDirsRedundancy(boolean val) { return this; }
    public Builder manageDataDfsDirs(boolean val) { manageData = val; return this; }
    public Builder startupOption(StartupOption val) {
      if (val != null && val != StartupOption.REGULAR && val != StartupOption.FORMAT) throw not("startupOption " + val);
      return this;
    }
    public Builder dnStartupOption(StartupOption val) { return startupOption(val); }
    public Builder racks(String[] val) { racks = val; return this; }
    public Builder hosts(String[] val) { hosts = val; return this; }
    public Builder simulatedCapacities(long[] val) { simulated = val; return this; }
    public Builder waitSafeMode(boolean val) { waitSafeMode = val; return this; }
    public Builder checkExitOnShutdown(boolean val) { return this; }
    public Builder checkDataNodeAddrConfig(boolean val) { return this; }
    public Builder checkDataNodeHostConfig(boolean val) { return this; }
    public Builder clusterId(String val) { return this; }
    public Builder setupHostsFile(boolean val) { if (val) throw not("setupHostsFile"); return this; }
    public Builder nnTopology(MiniDFSNNTopology val) { topology = val; return this; }
    public Builder dataNodeConfOverlays(Configuration[] val) { overlays = val; return this; }
    public Builder skipFsyncForTesting(boolean val) { return this; }
    public Builder useConfiguredTopologyMappingClass(boolean val) { return this; }
    public Builder setNNRedundancyConsiderLoad(boolean val) { return this; }
    public MiniDFSCluster build() throws IOException { return new MiniDFSCluster(this); }
  }

  /** A DataNode process, and what it needs to come back. */
  public static class DataNodeProperties {
    DataNode datanode;
    Configuration conf;
    private int index;
    private List<String> volumes;
    private String capacity;
    private String host;
    private Server process;
    private String address;
    private String uuid;
    private int port;
    private int ipcPort;
    private MiniDFSCluster cluster;

    public void setDnArgs(String... args) { throw not("setDnArgs"); }
    public DataNode getDatanode() { return datanode; }
  }

  public static class NameNodeInfo {
    public NameNode nameNode;
    Configuration conf;
    public void setConf(Configuration conf) { this.conf = conf; }
    public void setStartOpt(StartupOption startOpt) { throw not("setStartOpt"); }
    public String getNameserviceId() { return null; }
    public String getNamenodeId() { return null; }
  }

  /** A process of ours that ends with this JVM, since its standard input does. */
  private static final class Server {
    final Process process;
    final String ready;

    Server(List<String> command, String log) throws IOException {
      ProcessBuilder builder = new ProcessBuilder(command);
      builder.environment().put("HADOOP_USER_NAME", UserGroupInformation.getCurrentUser().getShortUserName());
      builder.redirectError(ProcessBuilder.Redirect.appendTo(new File(LOGS, log)));
      process = builder.start();
      BufferedReader out = new BufferedReader(new InputStreamReader(process.getInputStream()));
      String line;
      do {
        line = out.readLine();
        if (line == null) throw new IOException("shim: did not start: " + String.join(" ", command));
      } while (!line.startsWith("ready "));
      ready = line.substring("ready ".length());
    }

    void kill() {
      try {
        process.destroyForcibly().waitFor();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }

    void end() {
      try {
        process.getOutputStream().close();
        if (!process.waitFor(20, TimeUnit.SECONDS)) kill();
      } catch (IOException | InterruptedException e) {
        kill();
      }
    }
  }

  private Configuration conf;
  private File base;
  private File confDir;
  protected int numDataNodes;
  protected final List<DataNodeProperties> dataNodes = new ArrayList<>();
  protected int storagesPerDatanode = 2;
  private final Set<FileSystem> fileSystems = new HashSet<>();
  private int instance;
  private int port;
  private int httpPort;
  private Server namenode;
  private NameNodeInfo info;
  private NameNode nameNodeMock;
  private FSNamesystem namesystemMock;
  private NamenodeProtocols rpc;
  private String pool;
  private int nextIndex;
  private final Map<String, String> extra = new LinkedHashMap<>();

  public MiniDFSCluster() { }

  @Deprecated
  public MiniDFSCluster(Configuration conf, int numDataNodes, StartupOption option) throws IOException {
    this(new Builder(conf).numDataNodes(numDataNodes).format(false).startupOption(option));
  }

  @Deprecated
  public MiniDFSCluster(Configuration conf, int numDataNodes, boolean format, String[] racks) throws IOException {
    this(new Builder(conf).numDataNodes(numDataNodes).format(format).racks(racks));
  }

  @Deprecated
  public MiniDFSCluster(Configuration conf, int numDataNodes, boolean format, String[] racks, String[] hosts)
      throws IOException {
    this(new Builder(conf).numDataNodes(numDataNodes).format(format).racks(racks).hosts(hosts));
  }

  /** The one that HBase's tests call. */
  @Deprecated
  public MiniDFSCluster(int port, Configuration conf, int numDataNodes, boolean format, boolean manageNames,
      boolean manageData, StartupOption option, String[] racks, String[] hosts, long[] simulated) throws IOException {
    this(new Builder(conf).nameNodePort(port).numDataNodes(numDataNodes).format(format).manageDataDfsDirs(manageData)
        .startupOption(option).racks(racks).hosts(hosts).simulatedCapacities(simulated));
  }

  protected MiniDFSCluster(Builder b) throws IOException {
    if (b.topology != null && b.topology.countNameNodes() != 1) throw not("several NameNodes");
    ExitUtil.disableSystemExit();
    FileSystem.enableSymlinks();
    conf = b.conf;
    base = new File(determineDfsBaseDir());
    storagesPerDatanode = b.storages;
    synchronized (MiniDFSCluster.class) { instance = instances++; }
    if (b.format && base.exists() && !FileUtil.fullyDelete(base)) throw new IOException("cannot delete " + base);
    conf.setInt("dfs.replication", Math.min(conf.getInt("dfs.replication", 3), b.datanodes));
    confDir = new File(base, "conf-" + instance);
    confDir.mkdirs();
    port = b.port;
    info = new NameNodeInfo();
    info.conf = conf;
    boolean done = false;
    try {
      startNameNode();
      StorageType[][] each = b.typesEach;
      long[] one = b.simulated;
      if (b.capacitiesEach != null) {
        one = new long[b.datanodes];
        for (int i = 0; i < one.length; i++) one[i] = b.capacitiesEach[i][0];
      } else if (b.capacities != null) {
        one = new long[b.datanodes];
        for (int i = 0; i < one.length; i++) one[i] = b.capacities[0];
      }
      for (int i = 0; i < b.datanodes; i++) {
        addDataNode(b.overlays == null ? null : b.overlays[i], each != null ? each[i] : b.types,
            b.hosts == null ? null : b.hosts[i], one == null ? null : one[i], b.manageData);
      }
      waitClusterUp();
      done = true;
    } finally {
      if (!done) shutdown();
    }
  }

  // ---- processes ----

  private void writeConf(Configuration from) throws IOException {
    Map<String, String> known = new LinkedHashMap<>();
    for (String key : keys()) {
      String[] sources = from.getPropertySources(key);
      if (from.getRaw(key) == null || sources == null) continue;
      if (sources[sources.length - 1].endsWith("-default.xml")) continue;
      if (key.endsWith("address") || key.endsWith("-bind-host") || key.endsWith(".dir") || key.equals("fs.defaultFS")
          || key.equals("dfs.datanode.hostname") || key.equals("dfs.checksum.type")) continue;
      String value = from.get(key);
      // Slower than 3 s is meant to hold up beats so that a test can send its own: it cannot, here.
      if (key.equals("dfs.heartbeat.interval") && from.getTimeDuration(key, 3, TimeUnit.SECONDS) > 3) continue;
      known.put(key, value);
    }
    long recheck = from.getLong("dfs.namenode.heartbeat.recheck-interval", 300000);
    long beat = from.getTimeDuration("dfs.heartbeat.interval", 3, TimeUnit.SECONDS);
    long dead = 2 * recheck / 1000 + 10 * beat;
    if (dead > 10) known.put("mobula.namenode.dead-after", dead + "s");
    known.putAll(extra);
    StringBuilder text = new StringBuilder("<configuration>\n");
    for (Map.Entry<String, String> e : known.entrySet()) {
      text.append("<property><name>").append(e.getKey()).append("</name><value>")
          .append(e.getValue().replace("&", "&amp;").replace("<", "&lt;")).append("</value></property>\n");
    }
    Files.writeString(new File(confDir, "hdfs-site.xml").toPath(), text + "</configuration>\n");
    Files.writeString(new File(confDir, "core-site.xml").toPath(), "<configuration/>\n");
  }

  private static List<String> keys;

  private static synchronized List<String> keys() throws IOException {
    if (keys == null) {
      keys = new ArrayList<>();
      Process p = new ProcessBuilder(BINARY, "keys").start();
      for (String line : new String(p.getInputStream().readAllBytes()).split("\n")) {
        for (String word : line.trim().split("\\s+")) {
          if (word.startsWith("dfs.") || word.startsWith("fs.") || word.startsWith("hadoop.")) keys.add(word);
        }
      }
    }
    return keys;
  }

  private void startNameNode() throws IOException {
    writeConf(info.conf);
    if (port == 0) port = freePort();
    if (httpPort == 0) httpPort = freePort();
    List<String> command = List.of(BINARY, "namenode", "--conf", confDir.getPath(), "--dir",
        new File(base, "name").getPath(), "--listen", "127.0.0.1:" + port, "--http-port", "" + httpPort,
        "--until-stdin-closes");
    namenode = new Server(command, "namenode-" + instance + ".log");
    FileSystem.setDefaultUri(conf, getURI());
    conf.set(DFSConfigKeys.DFS_NAMENODE_RPC_ADDRESS_KEY, "localhost:" + port);
    conf.set(DFSConfigKeys.DFS_NAMENODE_HTTP_ADDRESS_KEY, "127.0.0.1:" + httpPort);
    nameNodeMock = Mockito.mock(NameNode.class, this::askNameNode);
    namesystemMock = Mockito.mock(FSNamesystem.class, this::askNamesystem);
    rpc = getNameNodeRpc(0);
    NameNodeAdapter.setLeaseManager(namesystemMock,
        NameNodeAdapter.leaseManager(rpc, this::setLeasePeriod));
    info.nameNode = nameNodeMock;
  }

  private static int freePort() throws IOException {
    try (ServerSocket socket = new ServerSocket(0)) { return socket.getLocalPort(); }
  }

  private void addDataNode(Configuration overlay, StorageType[] types, String host, Long capacity, boolean manage)
      throws IOException {
    DataNodeProperties node = new DataNodeProperties();
    node.cluster = this;
    node.index = nextIndex++;
    node.conf = new HdfsConfiguration(conf);
    if (overlay != null) node.conf.addResource(overlay);
    node.capacity = capacity == null ? null : Long.toString(capacity);
    node.host = host;
    node.volumes = new ArrayList<>();
    if (manage) {
      for (int i = 0; i < storagesPerDatanode; i++) {
        String type = types == null ? "" : "[" + types[i] + "]";
        File dir = getInstanceStorageDir(node.index, i);
        dir.mkdirs();
        node.volumes.add(type + dir.getPath());
      }
      node.conf.set("dfs.datanode.data.dir", String.join(",", node.volumes));
    } else {
      node.volumes.addAll(node.conf.getTrimmedStringCollection("dfs.datanode.data.dir"));
    }
    start(node);
  }

  private void start(DataNodeProperties node) throws IOException {
    if (node.port == 0) node.port = freePort();
    if (node.ipcPort == 0) node.ipcPort = freePort();
    File own = new File(confDir, "dn" + node.index);
    own.mkdirs();
    String host = node.host == null ? "127.0.0.1" : node.host;
    String xml = Files.readString(new File(confDir, "hdfs-site.xml").toPath());
    Files.writeString(new File(own, "hdfs-site.xml").toPath(), xml.replace("</configuration>",
        "<property><name>dfs.datanode.hostname</name><value>" + host + "</value></property></configuration>"));
    Files.writeString(new File(own, "core-site.xml").toPath(), "<configuration/>\n");
    List<String> command = new ArrayList<>(List.of(BINARY, "datanode", "--conf", own.getPath(),
        "--namenode", "127.0.0.1:" + port, "--listen", "127.0.0.1:" + node.port,
        "--ipc-listen", "127.0.0.1:" + node.ipcPort, "--until-stdin-closes"));
    for (String volume : node.volumes) { command.add("--dir"); command.add(volume); }
    if (node.capacity != null) { command.add("--capacity"); command.add(node.capacity); }
    node.process = new Server(command, "datanode-" + instance + "-" + node.index + ".log");
    String[] ready = node.process.ready.split(" ");
    node.address = ready[0];
    node.uuid = ready[1];
    node.datanode = Mockito.mock(DataNode.class, call -> askDataNode(node, call));
    dataNodes.add(node);
    numDataNodes = dataNodes.size();
  }

  // ---- what tests ask of a server's objects ----

  private Object askNameNode(InvocationOnMock call) throws Throwable {
    switch (call.getMethod().getName()) {
      case "getNameNodeAddress": case "getServiceRpcAddress": return new InetSocketAddress("localhost", port);
      case "getNameNodeAddressHostPortString": case "getHostAndPort": return "localhost:" + port;
      case "getClientNamenodeAddress": return "localhost:" + port;
      case "getRpcServer": return rpc;
      case "getNamesystem": return namesystemMock;
      case "isInSafeMode": return getNameNodeRpc().setSafeMode(SafeModeAction.SAFEMODE_GET, false);
      case "getConf": return conf;
      case "isActiveState": return true;
      case "isStarted": return true;
      case "stop": shutdownNameNode(0); return null;
      case "join": case "joinHttpServer": return null;
      case "toString": return "NameNode of Mobula";
      case "hashCode": return System.identityHashCode(call.getMock());
      default: throw not("NameNode." + call.getMethod().getName());
    }
  }

  private Object askNamesystem(InvocationOnMock call) throws Throwable {
    switch (call.getMethod().getName()) {
      case "getBlockPoolId": return pool();
      case "isInSafeMode": return getNameNodeRpc().setSafeMode(SafeModeAction.SAFEMODE_GET, false);
      case "getNumLiveDataNodes": return getNameNodeRpc().getDatanodeReport(DatanodeReportType.LIVE).length;
      case "getNumDeadDataNodes": return getNameNodeRpc().getDatanodeReport(DatanodeReportType.DEAD).length;
      case "toString": return "FSNamesystem of Mobula";
      case "hashCode": return System.identityHashCode(call.getMock());
      case "getBlockLocations": return rpc.getBlockLocations(call.getArgument(1), call.getArgument(2), call.getArgument(3));
      case "recoverLease": return rpc.recoverLease(call.getArgument(0), call.getArgument(1));
      default:
        try {
          Method same = NamenodeProtocols.class.getMethod(call.getMethod().getName(), call.getMethod().getParameterTypes());
          return same.invoke(rpc, call.getArguments());
        } catch (NoSuchMethodException e) {
          throw not("FSNamesystem." + call.getMethod().getName());
        } catch (InvocationTargetException e) {
          throw e.getCause();
        }
    }
  }

  private Object askDataNode(DataNodeProperties node, InvocationOnMock call) throws Throwable {
    switch (call.getMethod().getName()) {
      case "getDatanodeId": return id(node);
      case "getXferAddress": return new InetSocketAddress("127.0.0.1", node.port);
      case "getXferPort": return node.port;
      case "getIpcPort": return node.ipcPort;
      case "getInfoPort": return 0;
      case "getDatanodeUuid": return node.uuid;
      case "getDisplayName": return node.address;
      case "getConf": return node.conf;
      case "isDatanodeUp": case "isDatanodeFullyStarted": case "isConnectedToNN": return node.process.process.isAlive();
      case "shutdown": node.process.kill(); return null;
      case "getMachineName": return "127.0.0.1";
      case "toString": return "DataNode " + node.address;
      case "hashCode": return System.identityHashCode(call.getMock());
      case "equals": return call.getMock() == call.getArgument(0);
      default: throw not("DataNode." + call.getMethod().getName());
    }
  }

  private static DatanodeID id(DataNodeProperties node) {
    return new DatanodeID("127.0.0.1", node.host == null ? "127.0.0.1" : node.host, node.uuid, node.port, 0, 0,
        node.ipcPort);
  }

  /** The block pool, which the name of a DataNode's folder tells. */
  String pool() {
    if (pool == null) {
      for (DataNodeProperties node : dataNodes) {
        for (String volume : node.volumes) {
          String[] names = new File(volume.replaceFirst("^\\[.*\\]", ""), "current").list((d, n) -> n.startsWith("BP-"));
          if (names != null && names.length == 1) pool = names[0];
        }
      }
    }
    return pool;
  }

  // ---- the NameNode ----

  public int getStoragesPerDatanode() { return storagesPerDatanode; }
  public NameNodeInfo[] getNameNodeInfos() { return new NameNodeInfo[] {info}; }
  public NameNodeInfo[] getNameNodeInfos(int ns) { return getNameNodeInfos(); }
  public NameNodeInfo[] getNameNodeInfos(String ns) { return getNameNodeInfos(); }
  public URI getURI() { return getURI(0); }
  public URI getURI(int i) { return URI.create("hdfs://localhost:" + port); }
  public int getInstanceId() { return instance; }
  public Configuration getConfiguration(int i) { return info.conf; }
  public int getNumNameNodes() { return 1; }
  public NameNode getNameNode() { return nameNodeMock; }
  public NameNode getNameNode(int i) { return nameNodeMock; }
  public FSNamesystem getNamesystem() { return namesystemMock; }
  public FSNamesystem getNamesystem(int i) { return namesystemMock; }
  public int getNameNodePort() { return port; }
  public int getNameNodePort(int i) { return port; }
  public int getNameNodeServicePort(int i) { return port; }
  public String getHttpUri(int i) { throw not("getHttpUri"); }
  public void setNameNodeConf(int i, Configuration conf) { info.conf = conf; }
  public NamenodeProtocols getNameNodeRpc() { return getNameNodeRpc(0); }

  public NamenodeProtocols getNameNodeRpc(int i) {
    try {
      ClientProtocol client =
          NameNodeProxies.createNonHAProxy(conf, new InetSocketAddress("localhost", port), ClientProtocol.class,
              UserGroupInformation.getCurrentUser(), false).getProxy();
      InvocationHandler handler = (self, method, args) -> {
        if (method.getDeclaringClass() == Object.class) {
          return method.getName().equals("hashCode") ? System.identityHashCode(self)
              : method.getName().equals("equals") ? (Object) (self == args[0]) : "NameNode of Mobula by RPC";
        }
        try {
          Method same = ClientProtocol.class.getMethod(method.getName(), method.getParameterTypes());
          return same.invoke(client, args);
        } catch (NoSuchMethodException e) {
          throw not("NamenodeProtocols." + method.getName());
        } catch (InvocationTargetException e) {
          // In one process, tests get the exception itself.
          throw e.getCause() instanceof RemoteException
              ? ((RemoteException) e.getCause()).unwrapRemoteException() : e.getCause();
        }
      };
      // Not a Proxy of java.lang.reflect, which is final: tests spy on it.
      return (NamenodeProtocols) new ByteBuddy().subclass(Object.class).implement(NamenodeProtocols.class)
          .method(ElementMatchers.any())
          .intercept(InvocationHandlerAdapter.of(handler)).make()
          .load(MiniDFSCluster.class.getClassLoader(),
              ClassLoadingStrategy.Default.WRAPPER)
          .getLoaded().getDeclaredConstructor().newInstance();
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  public synchronized void shutdownNameNodes() { shutdownNameNode(0); }

  public synchronized void shutdownNameNode(int i) {
    if (namenode != null) namenode.end();
    namenode = null;
  }

  public synchronized void restartNameNodes() throws IOException { restartNameNode(0, false); }

  public synchronized void restartNameNode(String... args) throws IOException { restartNameNode(0, true, args); }
  public synchronized void restartNameNode(boolean waitActive) throws IOException { restartNameNode(0, waitActive); }
  public synchronized void restartNameNode(int i) throws IOException { restartNameNode(i, true); }

  public synchronized void restartNameNode(int i, boolean waitActive, String... args) throws IOException {
    if (args.length > 0) throw not("restartNameNode " + String.join(" ", args));
    shutdownNameNode(0);
    startNameNode();
    if (waitActive) waitActive();
  }

  public void setLeasePeriod(long soft, long hard) { setLeasePeriod(soft, hard, 0); }

  /** Limits are read at a start only: so the NameNode starts again. */
  public void setLeasePeriod(long soft, long hard, int i) {
    Map<String, String> before = new LinkedHashMap<>(extra);
    extra.put("mobula.namenode.lease-soft-limit", Math.max(1, soft) + "ms");
    extra.put("dfs.namenode.lease-hard-limit-sec", Math.max(1, hard) + "ms");
    if (before.equals(extra)) return;
    try {
      restartNameNode(0, true);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  public void setWaitSafeMode(boolean wait) { }
  public boolean isNameNodeUp(int i) { return namenode != null; }
  public boolean isClusterUp() { return namenode != null; }
  public void waitNameNodeUp(int i) { }
  public void transitionToActive(int i) { throw not("transitionToActive"); }
  public void transitionToStandby(int i) { throw not("transitionToStandby"); }
  public void waitClusterUp() throws IOException { waitActive(); }
  public void waitActive(int i) throws IOException { waitActive(); }
  public void waitFirstBRCompleted(int i, int timeout) throws IOException { waitActive(); }

  /** Until the NameNode counts every DataNode that runs as live. */
  public void waitActive() throws IOException {
    if (namenode == null) return;
    Set<String> wanted = new HashSet<>();
    for (DataNodeProperties node : dataNodes) if (node.process.process.isAlive()) wanted.add(node.uuid + node.port);
    try (DFSClient client = new DFSClient(new InetSocketAddress("localhost", port), conf)) {
      for (int tries = 0; tries < 600; tries++) {
        Set<String> missing = new HashSet<>(wanted);
        try {
          for (DatanodeInfo node : client.datanodeReport(DatanodeReportType.LIVE)) {
            missing.remove(node.getDatanodeUuid() + node.getXferPort());
          }
          if (missing.isEmpty()) return;
        } catch (IOException e) {
          if (tries > 100) throw e; // A cached connection fails once; and it may be starting.
        }
        pause(50);
      }
    }
    throw new IOException("shim: timed out waiting for " + wanted);
  }

  static void pause(long ms) {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  // ---- DataNodes ----

  public synchronized void startDataNodes(Configuration conf, int count, boolean manage, StartupOption option,
      String[] racks) throws IOException {
    startDataNodes(conf, count, manage, option, racks, null, null, false);
  }

  public synchronized void startDataNodes(Configuration conf, int count, boolean manage, StartupOption option,
      String[] racks, long[] simulated) throws IOException {
    startDataNodes(conf, count, manage, option, racks, null, simulated, false);
  }

  public synchronized void startDataNodes(Configuration conf, int count, boolean manage, StartupOption option,
      String[] racks, String[] hosts, long[] simulated) throws IOException {
    startDataNodes(conf, count, manage, option, racks, hosts, simulated, false);
  }

  public synchronized void startDataNodes(Configuration conf, int count, boolean manage, StartupOption option,
      String[] racks, String[] hosts, long[] simulated, boolean hostsFile) throws IOException {
    for (int i = 0; i < count; i++) {
      addDataNode(null, null, hosts == null ? null : hosts[i], simulated == null ? null : simulated[i], manage);
    }
    waitActive();
  }

  public ArrayList<DataNode> getDataNodes() {
    ArrayList<DataNode> list = new ArrayList<>();
    for (DataNodeProperties node : dataNodes) list.add(node.datanode);
    return list;
  }

  DataNode[] listDataNodes() { return getDataNodes().toArray(new DataNode[0]); }

  public DataNode getDataNode(int ipcPort) {
    for (DataNodeProperties node : dataNodes) if (node.ipcPort == ipcPort) return node.datanode;
    return null;
  }

  public void shutdownDataNodes() { while (!dataNodes.isEmpty()) shutdownDataNode(dataNodes.size() - 1); }

  public void shutdownDataNode(int i) {
    dataNodes.remove(i).process.kill();
    numDataNodes = dataNodes.size();
  }

  public synchronized DataNodeProperties stopDataNode(int i) {
    if (i < 0 || i >= dataNodes.size()) return null;
    DataNodeProperties node = dataNodes.get(i);
    shutdownDataNode(i);
    pause(STOP_MS);
    return node;
  }

  private int indexOf(String name) {
    for (int i = 0; i < dataNodes.size(); i++) if (dataNodes.get(i).address.equals(name)) return i;
    return -1;
  }

  public synchronized DataNodeProperties stopDataNode(String name) { return stopDataNode(indexOf(name)); }
  public synchronized DataNodeProperties stopDataNodeForUpgrade(int i) { throw not("stopDataNodeForUpgrade"); }

  public synchronized boolean restartDataNode(String name) throws IOException { return restartDataNode(indexOf(name)); }
  public boolean restartDataNode(DataNodeProperties node) throws IOException { return restartDataNode(node, false); }

  public synchronized boolean restartDataNode(DataNodeProperties node, boolean keepPort) throws IOException {
    if (!keepPort) node.port = node.ipcPort = 0;
    start(node);
    return true;
  }

  public boolean restartDataNode(int i) throws IOException { return restartDataNode(i, false); }
  public boolean restartDataNode(int i, boolean keepPort) throws IOException { return restartDataNode(i, keepPort, false); }

  public synchronized boolean restartDataNode(int i, boolean keepPort, boolean expire) throws IOException {
    DataNodeProperties node = stopDataNode(i);
    return node != null && restartDataNode(node, keepPort);
  }

  public synchronized boolean restartDataNodes(boolean keepPort) throws IOException {
    for (int i = dataNodes.size() - 1; i >= 0; i--) if (!restartDataNode(i, keepPort)) return false;
    return true;
  }

  public boolean restartDataNodes() throws IOException { return restartDataNodes(false); }
  public void setDataNodeDead(DatanodeID id) { throw not("setDataNodeDead"); }
  public void setDataNodesDead() { throw not("setDataNodesDead"); }
  public boolean isDataNodeUp() { return !dataNodes.isEmpty(); }
  public void waitDatanodeFullyStarted(DataNode dn, int timeout) { }
  public void waitDatanodeConnectedToActive(DataNode dn, int timeout) { }
  public void triggerBlockReports() { pause(1200); }
  public void triggerDeletionReports() { pause(1200); }
  public void triggerHeartbeats() { pause(1200); }
  public void waitForDNDeletions() { pause(5000); }

  // ---- replicas on disk ----

  private static final class Listing {
    static Map<DatanodeStorage, BlockListAsLongs> of(DataNodeProperties node) throws IOException {
      Map<DatanodeStorage, BlockListAsLongs> map =
          new HashMap<>();
      for (String volume : node.volumes) {
        String dir = volume.replaceFirst("^\\[.*\\]", "");
        List<Replica> replicas = new ArrayList<>();
        List<File> metas = getAllBlockMetadataFiles(new File(dir));
        for (File meta : metas == null ? List.<File>of() : metas) {
          String[] parts = meta.getName().replace(".meta", "").split("_");
          File data = new File(meta.getParentFile(), parts[0] + "_" + parts[1]);
          replicas.add(new FinalizedReplica(Long.parseLong(parts[1]),
              data.length(), Long.parseLong(parts[2]), null, null));
        }
        map.put(new DatanodeStorage(dir),
            BlockListAsLongs.encode(replicas));
      }
      return map;
    }
  }

  public Map<DatanodeStorage, BlockListAsLongs>
      getBlockReport(String pool, int i) {
    try {
      return Listing.of(dataNodes.get(i));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  public List<Map<DatanodeStorage, BlockListAsLongs>>
      getAllBlockReports(String pool) {
    List<Map<DatanodeStorage, BlockListAsLongs>> all =
        new ArrayList<>();
    for (int i = 0; i < dataNodes.size(); i++) all.add(getBlockReport(pool, i));
    return all;
  }

  private File corruptible(int i, ExtendedBlock block, boolean meta) throws IOException {
    String name = block.getBlockName() + (meta ? "_" + block.getGenerationStamp() + ".meta" : "");
    File file = anywhere(i, name);
    if (file == null) {
      throw new ReplicaNotFoundException(block);
    }
    return file;
  }

  public int corruptBlockOnDataNodes(ExtendedBlock block) throws IOException {
    int count = 0;
    for (int i = 0; i < dataNodes.size(); i++) {
      if (getBlockFile(i, block) != null) { corruptReplica(i, block); count++; }
    }
    return count;
  }

  public int corruptBlockOnDataNodesByDeletingBlockFile(ExtendedBlock block) throws IOException {
    int count = 0;
    for (File file : getAllBlockFiles(block)) if (file.delete()) count++;
    return count;
  }

  public String readBlockOnDataNode(int i, ExtendedBlock block) throws IOException {
    return new String(readBlockOnDataNodeAsBytes(i, block));
  }

  public byte[] readBlockOnDataNodeAsBytes(int i, ExtendedBlock block) throws IOException {
    File file = getBlockFile(i, block);
    return file == null ? null : Files.readAllBytes(file.toPath());
  }

  public void corruptReplica(int i, ExtendedBlock block) throws IOException {
    scribble(corruptible(i, block, false));
  }

  private static void scribble(File file) throws IOException {
    try (RandomAccessFile raw = new RandomAccessFile(file, "rw")) {
      raw.seek(raw.length() / 2);
      raw.write("BADBAD".getBytes());
    }
  }

  public void corruptReplica(DataNode dn, ExtendedBlock block) throws IOException {
    corruptReplica(getDataNodes().indexOf(dn), block);
  }

  public void corruptMeta(int i, ExtendedBlock block) throws IOException { scribble(corruptible(i, block, true)); }

  /** What tests do to the replicas of a DataNode, on its disk. */
  public FsDatasetTestUtils getFsDatasetTestUtils(int i) {
    return Mockito.mock(FsDatasetTestUtils.class, call -> {
      switch (call.getMethod().getName()) {
        case "getMaterializedReplica": return getMaterializedReplica(i, (ExtendedBlock) call.getArgument(0));
        case "getDefaultNumOfDataDirs": return 2;
        case "getStoredGenerationStamp": {
          long stamp = 0;
          for (File file : metas(i)) {
            String[] parts = file.getName().replace(".meta", "").split("_");
            if (parts[1].equals(Long.toString(((ExtendedBlock) call.getArgument(0)).getBlockId()))) {
              stamp = Math.max(stamp, Long.parseLong(parts[2]));
            }
          }
          return stamp;
        }
        default: throw not("FsDatasetTestUtils." + call.getMethod().getName());
      }
    });
  }

  public FsDatasetTestUtils getFsDatasetTestUtils(DataNode dn) {
    return getFsDatasetTestUtils(getDataNodes().indexOf(dn));
  }

  private List<File> metas(int node) {
    List<File> all = new ArrayList<>();
    for (int i = 0; i < storagesPerDatanode; i++) {
      List<File> files = walk(getStorageDir(dataNodes.get(node).index, i), true);
      if (files != null) all.addAll(files);
    }
    return all;
  }

  /** A replica that a test may spoil. */
  public FsDatasetTestUtils.MaterializedReplica getMaterializedReplica(
      int i, ExtendedBlock block) throws ReplicaNotFoundException {
    File data = anywhere(i, block.getBlockName());
    File meta = anywhere(i, block.getBlockName() + "_" + block.getGenerationStamp() + ".meta");
    if (data == null || meta == null) throw new ReplicaNotFoundException(block);
    return new FsDatasetTestUtils.MaterializedReplica() {
      public void corruptData() throws IOException { scribble(data); }
      public void corruptData(byte[] bytes) throws IOException { Files.write(data.toPath(), bytes); }
      public void truncateData(long size) throws IOException { cut(data, size); }
      public void deleteData() throws IOException { Files.delete(data.toPath()); }
      public void corruptMeta() throws IOException { scribble(meta); }
      public void deleteMeta() throws IOException { Files.delete(meta.toPath()); }
      public void truncateMeta(long size) throws IOException { cut(meta, size); }
      public void makeUnreachable() { throw not("MaterializedReplica.makeUnreachable"); }
    };
  }

  public FsDatasetTestUtils.MaterializedReplica getMaterializedReplica(
      DataNode dn, ExtendedBlock block) throws ReplicaNotFoundException {
    return getMaterializedReplica(getDataNodes().indexOf(dn), block);
  }

  /** A file of a replica in whatever state. */
  private File anywhere(int node, String name) {
    for (int i = 0; i < storagesPerDatanode; i++) {
      File storage = getStorageDir(dataNodes.get(node).index, i);
      List<File> files = walk(storage, name.endsWith(".meta"));
      for (File file : files == null ? List.<File>of() : files) if (file.getName().equals(name)) return file;
    }
    return null;
  }

  private static void cut(File file, long size) throws IOException {
    try (RandomAccessFile raw = new RandomAccessFile(file, "rw")) { raw.setLength(size); }
  }

  public void deleteMeta(int i, ExtendedBlock block) throws IOException {
    Files.delete(corruptible(i, block, true).toPath());
  }

  public void truncateMeta(int i, ExtendedBlock block, int size) throws IOException {
    cut(corruptible(i, block, true), size);
  }

  public File getInstanceStorageDir(int node, int dir) { return new File(base, volume(node, dir)); }
  public File getStorageDir(int node, int dir) { return new File(determineDfsBaseDir(), volume(node, dir)); }
  private String volume(int node, int dir) { return "data/data" + (storagesPerDatanode * node + 1 + dir); }
  public String getDataDirectory() { return new File(base, "data").getAbsolutePath(); }

  protected String determineDfsBaseDir() {
    String dir = conf == null ? null : conf.get(HDFS_MINIDFS_BASEDIR);
    return dir == null ? getBaseDirectory() : dir;
  }

  public static String getBaseDirectory() { return GenericTestUtils.getTestDir("dfs").getAbsolutePath() + File.separator; }
  public static String getDNCurrentDir(File storage) { return storage + "/current/"; }
  public static String getBPDir(File storage, String pool) { return getDNCurrentDir(storage) + pool + "/"; }
  public static String getBPDir(File storage, String pool, String dir) { return getBPDir(storage, pool) + dir + "/"; }
  public static File getRbwDir(File storage, String pool) { return new File(getBPDir(storage, pool, "current") + "rbw"); }

  public static File getFinalizedDir(File storage, String pool) {
    return new File(getBPDir(storage, pool, "current") + "finalized");
  }

  private static File folder(File storage, ExtendedBlock block) {
    return DatanodeUtil.idToBlockDir(getFinalizedDir(storage, block.getBlockPoolId()), block.getBlockId());
  }

  public static File getBlockFile(File storage, ExtendedBlock block) {
    return new File(folder(storage, block), block.getBlockName());
  }

  public static File getBlockMetadataFile(File storage, ExtendedBlock block) {
    return new File(folder(storage, block), block.getBlockName() + "_" + block.getGenerationStamp() + ".meta");
  }

  private static List<File> walk(File storage, boolean meta) {
    File[] files = storage.listFiles();
    if (files == null) return null;
    List<File> found = new ArrayList<>();
    for (File file : files) {
      if (file.isDirectory()) {
        List<File> below = walk(file, meta);
        if (below != null) found.addAll(below);
      } else if (file.getName().startsWith("blk_") && file.getName().endsWith(".meta") == meta) {
        found.add(file);
      }
    }
    return found;
  }

  public static List<File> getAllBlockFiles(File storage) { return walk(storage, false); }
  public static List<File> getAllBlockMetadataFiles(File storage) { return walk(storage, true); }

  public File[] getAllBlockFiles(ExtendedBlock block) {
    List<File> found = new ArrayList<>();
    for (int i = 0; i < dataNodes.size(); i++) {
      File file = getBlockFile(i, block);
      if (file != null) found.add(file);
    }
    return found.toArray(new File[0]);
  }

  public File getBlockFile(int node, ExtendedBlock block) {
    for (int i = 0; i < storagesPerDatanode; i++) {
      File file = getBlockFile(getStorageDir(dataNodes.get(node).index, i), block);
      if (file.exists()) return file;
    }
    return null;
  }

  public File getBlockMetadataFile(int node, ExtendedBlock block) {
    for (int i = 0; i < storagesPerDatanode; i++) {
      File file = getBlockMetadataFile(getStorageDir(dataNodes.get(node).index, i), block);
      if (file.exists()) return file;
    }
    return null;
  }

  // ---- clients ----

  public DistributedFileSystem getFileSystem() throws IOException { return getFileSystem(0); }

  public DistributedFileSystem getFileSystem(int i) throws IOException {
    return kept((DistributedFileSystem) FileSystem.get(getURI(), info.conf));
  }

  public FileSystem getNewFileSystemInstance(int i) throws IOException {
    return kept(FileSystem.newInstance(getURI(), info.conf));
  }

  private <T extends FileSystem> T kept(T fs) { fileSystems.add(fs); return fs; }

  public static void shutdownCluster(MiniDFSCluster cluster) { if (cluster != null) cluster.shutdown(); }
  public void shutdown() { shutdown(false); }
  public void shutdown(boolean delete) { shutdown(delete, true); }

  public void shutdown(boolean delete, boolean closeFileSystem) {
    if (closeFileSystem) {
      for (FileSystem fs : fileSystems) {
        try {
          fs.close();
        } catch (IOException e) {
          System.err.println("shim: closing: " + e);
        }
      }
      fileSystems.clear();
    }
    shutdownDataNodes();
    if (namenode != null) namenode.kill();
    namenode = null;
    if (delete && base != null) FileUtil.fullyDelete(base);
  }

  @Override
  public void close() { shutdown(); }
}
