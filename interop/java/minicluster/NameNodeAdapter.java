package org.apache.hadoop.hdfs.server.namenode;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.Field;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.Set;

import org.apache.hadoop.fs.BatchedRemoteIterator.BatchedEntries;
import org.apache.hadoop.fs.permission.PermissionStatus;
import org.apache.hadoop.ha.HAServiceProtocol.HAServiceState;
import org.apache.hadoop.hdfs.protocol.HdfsConstants.SafeModeAction;
import org.apache.hadoop.hdfs.protocol.HdfsFileStatus;
import org.apache.hadoop.hdfs.protocol.LocatedBlocks;
import org.apache.hadoop.hdfs.protocol.OpenFileEntry;
import org.apache.hadoop.hdfs.protocol.OpenFilesIterator.OpenFilesType;
import org.apache.hadoop.hdfs.server.protocol.NamenodeProtocols;
import org.mockito.Mockito;

/** The part of Hadoop's class of this name that can be answered by RPC. What it lacks is a NoSuchMethodError. */
public class NameNodeAdapter {
  public interface LeasePeriod { void set(long soft, long hard); }

  /** What the servers' objects of a cluster get to ask it by: see MiniDFSCluster. */
  public static LeaseManager leaseManager(NamenodeProtocols rpc, LeasePeriod period) {
    return Mockito.mock(LeaseManager.class, call -> {
      switch (call.getMethod().getName()) {
        case "setLeasePeriod": period.set(call.getArgument(0), call.getArgument(1)); return null;
        case "triggerMonitorCheckNow": case "runLeaseChecks": return null;
        case "countLease": return clients(rpc).size();
        case "toString": return "LeaseManager of Mobula";
        case "hashCode": return System.identityHashCode(call.getMock());
        default: throw new UnsupportedOperationException("shim: LeaseManager." + call.getMethod().getName());
      }
    });
  }

  public static void setLeaseManager(FSNamesystem ns, LeaseManager manager) {
    try {
      Field field = FSNamesystem.class.getDeclaredField("leaseManager");
      field.setAccessible(true);
      field.set(ns, manager);
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e);
    }
  }

  private static Set<String> clients(NamenodeProtocols rpc) throws IOException {
    Set<String> clients = new HashSet<>();
    long from = 0;
    BatchedEntries<OpenFileEntry> page;
    do {
      page = rpc.listOpenFiles(from, EnumSet.of(OpenFilesType.ALL_OPEN_FILES), "");
      for (int i = 0; i < page.size(); i++) {
        clients.add(page.get(i).getClientName());
        from = page.get(i).getId();
      }
    } while (page.hasMore());
    return clients;
  }

  public static FSNamesystem getNamesystem(NameNode namenode) { return namenode.getNamesystem(); }

  public static LocatedBlocks getBlockLocations(NameNode namenode, String src, long offset, long length)
      throws IOException {
    return namenode.getRpcServer().getBlockLocations(src, offset, length);
  }

  public static HdfsFileStatus getFileInfo(NameNode namenode, String src, boolean resolve, boolean locate, boolean token)
      throws IOException {
    return locate ? namenode.getRpcServer().getLocatedFileInfo(src, token) : namenode.getRpcServer().getFileInfo(src);
  }

  public static boolean mkdirs(NameNode namenode, String src, PermissionStatus status, boolean parents)
      throws IOException {
    return namenode.getRpcServer().mkdirs(src, status.getPermission(), parents);
  }

  public static void saveNamespace(NameNode namenode) throws IOException { namenode.getRpcServer().saveNamespace(0, 0); }

  public static void enterSafeMode(NameNode namenode, boolean low) throws IOException {
    namenode.getRpcServer().setSafeMode(SafeModeAction.SAFEMODE_ENTER, false);
  }

  public static void leaveSafeMode(NameNode namenode) throws IOException {
    namenode.getRpcServer().setSafeMode(SafeModeAction.SAFEMODE_LEAVE, false);
  }

  public static boolean setReplication(FSNamesystem ns, String src, short replication) throws IOException {
    throw new UnsupportedOperationException("shim: NameNodeAdapter.setReplication");
  }

  public static LeaseManager getLeaseManager(FSNamesystem ns) { return ns.leaseManager; }

  public static void setLeasePeriod(FSNamesystem ns, long soft, long hard) { ns.leaseManager.setLeasePeriod(soft, hard); }

  public static String getLeaseHolderForPath(NameNode namenode, String path) throws IOException {
    BatchedEntries<OpenFileEntry> page =
        namenode.getRpcServer().listOpenFiles(0, EnumSet.of(OpenFilesType.ALL_OPEN_FILES), path);
    for (int i = 0; i < page.size(); i++) if (page.get(i).getFilePath().equals(path)) return page.get(i).getClientName();
    return null;
  }

  public static LeaseManager.Lease getLeaseForPath(NameNode namenode, String path) throws IOException {
    String holder;
    try {
      holder = getLeaseHolderForPath(namenode, path);
    } catch (java.io.FileNotFoundException e) {
      return null;
    }
    return holder == null ? null : Mockito.mock(LeaseManager.Lease.class, call -> {
      if (call.getMethod().getName().equals("getHolder")) return holder;
      throw new UnsupportedOperationException("shim: Lease." + call.getMethod().getName());
    });
  }

  public static HAServiceState getServiceState(NameNode nn) { return HAServiceState.ACTIVE; }
}
